"""Every decoder of bytes that come from elsewhere, with the errors that it documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from agents.ptp import messages as ptp
from controller.core.observation import Observation
from controller.links import codec, ran_protocol
from controller.store import record
from openrtist import payload
from wire import edge_pb2, qos_pb2, ran_pb2
from wire.definitions.nr import TDD_PATTERNS
from wire.serving import parse

CELL = codec.CellFacts("cell-1", 106, 30, TDD_PATTERNS["DSUUU"])
NOW_NS = 1_700_000_000_000_000_000
TABLES = {"pose": 6, "hits": 1}
SENT = {1: ("flow-1",)}


@dataclass(frozen=True, slots=True)
class Decoder:
    """``decode`` takes any bytes and raises nothing but ``errors``."""

    decode: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]

    def taken(self, data: bytes) -> bool:
        """Whether ``data`` was taken; what the decoder does not document is raised."""
        try:
            self.decode(data)
        except self.errors:
            return False
        return True

    def __call__(self, data: bytes) -> None:
        self.taken(data)


def _ran(data: bytes) -> None:
    """A message to a session that has a quota; a report that becomes an event is opened as the cell does."""
    link = ran_protocol.RanProtocol(report_period_ms=50, lease_s=3.0, new_session=lambda: 7)
    hello = ran_pb2.Hello(protocol_version=1, cell_id=CELL.cell_id, prb=CELL.n_prb, scs_khz=CELL.scs_khz)
    tdd = CELL.tdd
    for name in ran_pb2.TddPattern.DESCRIPTOR.fields_by_name:
        setattr(hello.tdd, name, getattr(tdd, name))
    link.receive(b"peer", ran_pb2.GnbMessage(hello=hello).SerializeToString(), 0.0)
    link.set_quota(CELL.cell_id, {"ar": (10, 10)}, {}, 10.0, 0.0)
    link.receive(b"peer", data, 0.1)
    link.tick(5.0)
    for event in link.take_events():
        if isinstance(event, ran_protocol.RawReport):
            codec.open_report(event.message, CELL)


def _qos(data: bytes) -> None:
    message = parse(qos_pb2.QosMessage, data)
    if message is None:
        return
    match message.WhichOneof("body"):
        case "flow_start":
            codec.open_flow_start(message.flow_start)
        case "flow_stop":
            codec.open_flow_stop(message.flow_stop)
        case "frames":
            codec.open_frame_batch(message.frames, synchronised=True, received_ns=NOW_NS)
        case "samples":
            codec.open_samples(message.samples, TABLES, received_ns=NOW_NS)
        case "settings_applied":
            codec.open_settings_applied(message.settings_applied, host="ue-1", stream=1, sent=SENT)
        case "clock":
            codec.open_clock_status(message.clock)


def _gpu(data: bytes) -> None:
    codec.check_gpu_state(edge_pb2.GpuState.FromString(data))


def _json(upgrade: Callable[[Mapping[str, Any]], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        value = json.loads(data)
        return upgrade(value) if isinstance(value, dict) else None

    return decode


def _observation(data: Mapping[str, Any]) -> Observation:
    return Observation.from_dict(record.upgrade_observation(data))


DECODERS: dict[str, Decoder] = {
    "ran": Decoder(_ran, (codec.BadReport,)),
    "qos": Decoder(_qos, (codec.BadMessage,)),
    "gpu-state": Decoder(_gpu, (DecodeError, codec.BadMessage)),
    "ptp": Decoder(ptp.parse, (ptp.BadManagement,)),
    "openrtist-frame": Decoder(payload.Frame.unpack, (payload.BadPayload,)),
    "openrtist-reply": Decoder(payload.Reply.unpack, (payload.BadPayload,)),
    "record-decision": Decoder(_json(record.upgrade), record.NOT_A_RECORD),
    "record-observation": Decoder(_json(_observation), record.NOT_A_RECORD),
    "record-spec": Decoder(_json(record.upgrade_spec), record.NOT_A_RECORD),
    "record-state": Decoder(_json(record.upgrade_state), record.NOT_A_RECORD),
}
"""By the name that its corpus has."""
