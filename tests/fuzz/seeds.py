"""Writes the corpus from valid messages: ``python -m tests.fuzz.seeds``. Inputs that a fuzzer found stay."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from agents.ptp import messages as ptp
from openrtist.payload import Frame, Reply
from tests.fuzz import CORPUS, MAX_BYTES
from tests.fuzz.decoders import NOW_NS, TABLES
from wire import edge_pb2, qos_pb2

_ROOT = Path(__file__).parents[2]
_OLD_RUN = _ROOT / "tests" / "store" / "version-1" / "run.sqlite"


def seeds() -> Iterator[tuple[str, bytes]]:
    """(decoder, input)."""
    for data in _vectors():
        yield "ran", data
    for message in _qos():
        yield "qos", message.SerializeToString()
    state = edge_pb2.GpuState(gpu="GPU-1", time_ns=NOW_NS, sm_mhz=1200, power_w=90.0, utilisation=0.5)
    yield "gpu-state", state.SerializeToString()
    for id, layout in ptp._LAYOUTS.items():
        yield "ptp", _ptp_answer(id, bytes(range(layout.size)))
    yield "openrtist-frame", Frame(3, "the_scream", b"\xff\xd8jpeg").pack()
    yield (
        "openrtist-reply",
        Reply(3, NOW_NS, NOW_NS + 1, 9, 12, 1200, True, b"\xff\xd8", ((4, NOW_NS),)).pack(),
    )
    yield from _records()


def _vectors() -> Iterator[bytes]:
    for vector in json.loads((_ROOT / "wire" / "vectors" / "to_controller.json").read_text())["vectors"]:
        parts = [(p, 1) if isinstance(p, str) else p for p in vector["bytes"]]
        data = b"".join(bytes.fromhex(text) * times for text, times in parts)
        if len(data) <= MAX_BYTES:
            yield data


def _qos() -> Iterator[qos_pb2.QosMessage]:
    start = {"ue_id": "ue-1", "slice": "ar", "ul_bps": 4e6, "dl_bps": 1e6, "time_ns": NOW_NS, "service": "ar"}
    frame = {"ue_sent_ns": NOW_NS, "edge_received_ns": NOW_NS + 9, "edge_sent_ns": NOW_NS + 12}
    table, width = next(iter(TABLES.items()))
    clock = {"ptp_state": "SLAVE", "offset_ns": -40.0, "path_delay_ns": 900.0, "time_ns": NOW_NS}
    yield from (
        qos_pb2.QosMessage(
            hello=qos_pb2.QosHello(protocol_version=1, host="ue-1", cell_id="cell-1", instance=5)
        ),
        qos_pb2.QosMessage(flow_start=qos_pb2.FlowStart(flow="flow-1", **start)),
        qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow="flow-1", time_ns=NOW_NS)),
        qos_pb2.QosMessage(
            frames=qos_pb2.FrameBatch(
                flow="flow-1", frames=[qos_pb2.Frame(sequence=i, **frame) for i in (1, 2)]
            )
        ),
        qos_pb2.QosMessage(
            samples=qos_pb2.Samples(
                flow="flow-1", table=table, time_ns=[NOW_NS] * 2, values=[0.5] * 2 * width
            )
        ),
        qos_pb2.QosMessage(settings_applied=qos_pb2.SettingsApplied(sequence=1, time_ns=NOW_NS)),
        qos_pb2.QosMessage(clock=qos_pb2.ClockStatus(host="edge", grandmaster="0001.fffe", **clock)),
    )


def _ptp_answer(id: ptp.Id, content: bytes) -> bytes:
    """A RESPONSE, made of the GET that asks for it."""
    asked = ptp.request(id, sequence=7, source=ptp.PortIdentity(b"\1" * 8, 1))
    tlv = len(asked) - ptp._TLV.size
    answer = bytearray(asked[:tlv] + ptp._TLV.pack(ptp._TLV_DATA, 2 + len(content), id) + content)
    answer[2:4] = len(answer).to_bytes(2, "big")
    answer[ptp._HEADER.size + 12] = ptp._RESPONSE
    return bytes(answer)


def _records() -> Iterator[tuple[str, bytes]]:
    db = sqlite3.connect(f"{_OLD_RUN.resolve().as_uri()}?immutable=1", uri=True)
    try:
        spec, state = db.execute("SELECT spec, state FROM starts ORDER BY id LIMIT 1").fetchone()
        rows = db.execute("SELECT decision, observation FROM control_slots ORDER BY id LIMIT 3").fetchall()
    finally:
        db.close()
    yield "record-spec", spec.encode()
    yield "record-state", state.encode()
    for decision, observation in rows:
        yield "record-decision", decision.encode()
        yield "record-observation", zlib.decompress(observation)


def main() -> None:
    counts: dict[str, int] = {}
    for name, data in seeds():
        if len(data) <= MAX_BYTES:
            counts[name] = counts.get(name, 0) + 1
            path = CORPUS / name / f"seed-{counts[name]:02}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    print(", ".join(f"{name}: {n}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
