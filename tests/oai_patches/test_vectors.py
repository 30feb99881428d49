"""The RAN link's test vectors: the C agent, the Python model and the controller come to the same verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from agents.gnb_mock.agent import CellTime
from controller.links import codec, ran_protocol
from tests.oai_patches.build import CLink
from tests.oai_patches.model import CELL_LINE, PyLink, decoded
from wire import MAX_GNB_MESSAGE_BYTES, PROTOCOL_VERSION, ran_pb2
from wire.definitions import qos

FOLDER = Path(__file__).parents[2] / "wire" / "vectors"
SECOND = 1_000_000_000
TOO_LONG = "too long to write down"
Vector = dict[str, Any]


def vectors(name: str) -> list[Any]:
    found = json.loads((FOLDER / name).read_text())["vectors"]
    return [pytest.param(v, id=v["name"].replace(" ", "-")) for v in found]


def data_of(vector: Vector) -> bytes:
    parts = [(p, 1) if isinstance(p, str) else p for p in vector["bytes"]]
    return b"".join(bytes.fromhex(text) * times for text, times in parts)


def said(vector: Vector, kind: Any) -> Any:
    """The message that the vector says its bytes are; None where they are none."""
    if vector["message"] is None:
        return None
    return json_format.ParseDict(vector["message"], kind())


def parsed(data: bytes, kind: Any) -> Any:
    try:
        message = kind.FromString(data)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message


@pytest.mark.parametrize("name", ["to_gnb.json", "to_controller.json"])
def test_bytes_and_values_of_a_vector_are_the_same_message(name: str) -> None:
    kind = ran_pb2.ControllerMessage if name == "to_gnb.json" else ran_pb2.GnbMessage
    for (vector,) in (v.values for v in vectors(name)):
        if vector["message"] != TOO_LONG:
            # As text, in which NaN equals NaN.
            assert str(parsed(data_of(vector), kind)) == str(said(vector, kind)), vector["name"]


# ---- controller to gNB ----------------------------------------------------------------------------------


def prepare_python() -> PyLink:
    link = PyLink()
    link.tick(0)
    link.send(0)
    for message in OPENING:
        link.receive(0, message)
    link.enforced(CellTime(1, 2, 3), [])
    link.send(0)
    return link


def prepare_c(link: CLink) -> None:
    link(*CELL_LINE)
    link("tick", 0)
    link("send", 0)
    for message in OPENING:
        link("receive", 0, message.hex())
    link("enforced", 1, 2, 3)
    link("send", 0)


OPENING = [
    ran_pb2.ControllerMessage(
        welcome=ran_pb2.Welcome(
            session=7, protocol_version=PROTOCOL_VERSION, report_period_ms=10, lease_ms=3000
        )
    ).SerializeToString(),
    ran_pb2.ControllerMessage(
        set_quota=ran_pb2.SetQuota(
            session=7,
            sequence=5,
            lease_ms=3000,
            quotas=[ran_pb2.SliceQuota(slice="ar", ul_prb=30, dl_prb=20)],
        )
    ).SerializeToString(),
]


@pytest.mark.parametrize("vector", vectors("to_gnb.json"))
def test_c_agent_and_python_model_agree_on_what_a_controller_says(vector: Vector, c_link: CLink) -> None:
    data = data_of(vector)
    prepare_c(c_link)
    model = prepare_python()
    before = c_link.json("state")
    assert before == model.state()
    c_link("receive", SECOND, data.hex())
    model.receive(SECOND, data)
    after = c_link.json("state")
    assert after == model.state()
    assert c_link.message("peek") == model.peek()
    raised = {n for n in after["counters"] if after["counters"][n] != before["counters"][n]}
    expected = vector["counts"]
    # The answer to a request for a Hello is counted, too.
    assert raised - {"hellos"} == ({expected} if expected else set())


@pytest.mark.parametrize("vector", vectors("to_gnb.json"))
def test_c_decodes_to_the_values_that_python_decodes(vector: Vector, c_link: CLink) -> None:
    data = data_of(vector)
    in_c = c_link.json("decode", data.hex() or "-")
    if len(data) > MAX_GNB_MESSAGE_BYTES or parsed(data, ran_pb2.ControllerMessage) is None:
        assert in_c is None
        return
    in_python = decoded(data)
    if in_c[0] == "set_quota" and in_c.pop():
        # Too large to be held: what was kept is a part of it.
        assert in_c[:4] == in_python[:4]
        assert all(len(c) <= len(p) for c, p in zip(in_c[4:], in_python[4:], strict=True))
        for kept, whole in zip(in_c[4], in_python[4], strict=False):
            assert whole[0].startswith(kept[0]) and whole[1:] == kept[1:]
    elif in_c[0] == "reject":
        assert in_c == ["reject", in_python[1][: 2 * 127], *in_python[2:]]
    else:
        assert in_c == in_python


def test_a_name_with_a_zero_byte_is_refused_since_c_cannot_hold_it(c_link: CLink) -> None:
    prepare_c(c_link)
    message = ran_pb2.ControllerMessage.FromString(OPENING[1])
    message.set_quota.sequence = 6
    message.set_quota.quotas[0].slice = "a\0b"
    c_link("receive", SECOND, message.SerializeToString().hex())
    state = c_link.json("state")
    assert state["counters"]["refused_quotas"] == 1 and state["pending"] is None


# ---- gNB to controller ----------------------------------------------------------------------------------


def controller() -> ran_protocol.RanProtocol:
    protocol = ran_protocol.RanProtocol(report_period_ms=10, lease_s=3.0, new_session=lambda: 7)
    hello = next(v.values[0] for v in vectors("to_controller.json") if v.values[0]["name"] == "a Hello")
    protocol.receive(b"first", data_of(hello), 0.0)
    protocol.set_quota("cell-1", {"ar": (30, 20)}, {}, 3600.0, 0.0)
    protocol.take_events()
    return protocol


def verdict(data: bytes, message: Any) -> str:
    protocol = controller()
    before = protocol.counters.snapshot()
    hello = message is not None and message.WhichOneof("body") == "hello"
    now = 1.0
    if hello:
        # The first connection is silent by then.
        protocol.tick(now := 10.0)
        protocol.take_events()
        before = protocol.counters.snapshot()
    protocol.receive(b"second" if hello else b"first", data, now)
    for event in protocol.take_events():
        match event:
            case ran_protocol.CellJoined():
                return "joined"
            case ran_protocol.LeaseLapsed():
                return "lapsed"
            case ran_protocol.QuotaApplied():
                return "applied"
            case ran_protocol.RawReport():
                try:
                    _, wrong = codec.open_report(event.message, protocol.cells["cell-1"])
                except codec.BadReport as error:
                    return f"BadReport: {error}"
                return f"left out: {wrong[0]}" if wrong else "report"
    after = protocol.counters.snapshot()
    (raised,) = (name for (name, cell), n in after.items() if n != before.get((name, cell), 0))
    return raised


@pytest.mark.parametrize("vector", vectors("to_controller.json"))
def test_the_controller_comes_to_the_vectors_verdict(vector: Vector) -> None:
    data = data_of(vector)
    came = verdict(data, parsed(data, ran_pb2.GnbMessage))
    expected = vector["verdict"]
    kind, _, text = expected.partition(": ")
    assert came == expected or (text and came.startswith(f"{kind}: ") and text in came)


def ue_line(ue: ran_pb2.UeState) -> tuple[object, ...]:
    def direction(s: ran_pb2.DirectionState) -> tuple[object, ...]:
        return s.mcs, s.mcs_table, s.layers, s.bler, s.queued_bytes, s.lc_bytes, s.prb_slots

    name = ue.ue_id.encode().hex()
    snssai = (ue.snssai.sst, ue.snssai.sd) if ue.HasField("snssai") else (0, qos.NO_SD)
    channels = [n for c in ue.dl_channels for n in (c.lcid, c.queued_bytes)]
    both = (*direction(ue.ul), *direction(ue.dl))
    return ("ue", ue.rnti, name, *snssai, ue.cqi, ue.snr_db, *both, ue.five_qi, ue.priority_level, *channels)


def c_holds(ue: ran_pb2.UeState) -> bool:
    """Whether a ``prbandit_ue`` can; an SST of 0 is there no S-NSSAI at all."""
    snssai = not ue.HasField("snssai") or 0 < ue.snssai.sst < 1 << 8
    counts = max(ue.five_qi, ue.priority_level) < 1 << 8 and len(ue.dl_channels) <= 8
    return len(ue.ue_id) < 32 and snssai and counts and all(c.queued_bytes < 1 << 32 for c in ue.dl_channels)


def bound(report: ran_pb2.MacReport) -> bytes:
    """A quota that binds the UEs of a report to their slices."""
    slices = {u.ue_id: u.slice for u in report.ues if u.slice and u.ue_id}
    bindings = [ran_pb2.UeBinding(ue_id=ue, slice=name) for ue, name in slices.items()]
    quota = ran_pb2.SetQuota(session=7, sequence=1, lease_ms=1000, bindings=bindings)
    return ran_pb2.ControllerMessage(set_quota=quota).SerializeToString()


def c_can_say(vector: Vector) -> bool:
    """Whether the C agent's own structures can hold what the vector says."""
    message = parsed(data_of(vector), ran_pb2.GnbMessage)
    if message is None or vector["verdict"] in ("ran_malformed_total", "ran_no_session_total"):
        return False
    match message.WhichOneof("body"):
        case "hello":
            return vector["verdict"] == "joined"
        case "mac_report":
            report = message.mac_report
            # Slices are bound by UE id.
            ids = {u.ue_id for u in report.ues}
            return len(ids) == len(report.ues) <= 64 and all(map(c_holds, report.ues))
        case _:
            return vector["verdict"] in ("applied", "lapsed")


@pytest.mark.parametrize("vector", [v for v in vectors("to_controller.json") if c_can_say(v.values[0])])
def test_c_encodes_what_the_vectors_say_byte_for_byte(vector: Vector, c_link: CLink) -> None:
    data = data_of(vector)
    message = ran_pb2.GnbMessage.FromString(data)
    c_link(*CELL_LINE)
    match message.WhichOneof("body"):
        case "hello":
            h, t = message.hello, message.hello.tdd
            tdd = (t.period_slots, t.dl_slots, t.dl_symbols, t.ul_symbols, t.ul_slots)
            version = h.agent_version.encode().hex()
            c_link("cell", h.cell_id.encode().hex(), h.prb, h.scs_khz, *tdd, version, h.min_prb)
            c_link("tick", 0)
            assert c_link.message("peek") == data
        case "mac_report":
            report = message.mac_report
            c_link("receive", 0, OPENING[0].hex())
            # The slice by its S-NSSAI where the gNB has it, else by a binding.
            for u in report.ues:
                if u.slice and u.HasField("snssai"):
                    c_link("slice", u.slice.encode().hex(), u.snssai.sst, u.snssai.sd)
            c_link("receive", 0, bound(report).hex())
            c_link("enforced", 1, 2, 3)
            for ue in report.ues:
                c_link(*ue_line(ue))
            # NaN has many forms: then the values are what counts.
            encoded = c_link.message("report", report.frame, report.slot, report.time_ns)
            message.DiscardUnknownFields()
            assert encoded == data or str(ran_pb2.GnbMessage.FromString(encoded or b"")) == str(message)
        case "applied":
            applied = message.applied
            c_link("receive", 0, OPENING[0].hex())
            quota = ran_pb2.SetQuota(
                session=7, sequence=applied.sequence, lease_ms=1000, quotas=applied.in_force
            )
            c_link("receive", 0, ran_pb2.ControllerMessage(set_quota=quota).SerializeToString().hex())
            if applied.lapsed:
                c_link("tick", 2 * SECOND)
            uses = [
                word
                for u in applied.use
                for word in (
                    u.slice.encode().hex() or "-",
                    *(u.direction, u.max_new_prb, u.new_prb_slots, u.retx_prb_slots, u.slots),
                )
            ]
            c_link("enforced", applied.frame, applied.slot, applied.time_ns, *uses)
            assert c_link.message("peek") == data
