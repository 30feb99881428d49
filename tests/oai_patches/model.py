"""The Python model of the RAN agent behind the commands of ``link_script``, for comparison."""

from __future__ import annotations

from typing import Any

from agents.gnb_mock.agent import Cell, CellTime, RanAgent
from wire import ran_pb2

COUNTERS = (
    *("sessions", "hellos", "rejects", "hello_requests", "quotas", "releases", "leases_lapsed"),
    *("reconnects", "acks_superseded", "malformed", "wrong_session", "old_sequence", "repeated_sequence"),
    *("refused_quotas", "refused_welcomes", "uses_left_out"),
)
TDD = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=10, ul_symbols=2, ul_slots=3)
CELL = Cell("cell-1", 106, 30, TDD, "test 1", 5)
CELL_LINE = ("cell", b"cell-1".hex(), 106, 30, 5, 1, 10, 2, 3, b"test 1".hex(), 5)
Use = tuple[str, int, int, int, int, int]
"""Slice, direction, most PRBs, PRBs of new data, of retransmissions, NR slots."""


class PyLink:
    """Times are ns, as there."""

    def __init__(self) -> None:
        self.agent = RanAgent(CELL)

    def receive(self, now: int, data: bytes) -> None:
        self.agent.receive(data, now / 1e9)

    def tick(self, now: int) -> None:
        self.agent.tick(now / 1e9)

    def peek(self) -> bytes | None:
        return self.agent.to_send()

    def send(self, now: int) -> bytes | None:
        data = self.agent.to_send()
        if data is not None:
            self.agent.sent(now / 1e9)
        return data

    def enforced(self, at: CellTime, uses: list[Use]) -> None:
        if self.agent.pending is not None:
            self.agent.enforced(at, lambda: [slice_use(use) for use in uses])

    def refuse(self) -> None:
        if self.agent.pending is not None:
            self.agent.not_enforceable("as the script says")

    def not_sent(self, now: int) -> None:
        self.agent.not_sent(now / 1e9)

    def reconnect(self, now: int) -> bool:
        return self.agent.reconnect(now / 1e9)

    def report(self, report: ran_pb2.MacReport) -> bytes | None:
        data = self.agent.report(report)
        if data is not None:
            self.agent.report_sent()
        return data

    def state(self) -> dict[str, Any]:
        agent = self.agent
        pending, lease = agent.pending, agent._lease
        return {
            "session": agent.session,
            "period": agent.report_period_ms,
            "rejected": bool(agent.rejected),
            "pending": None
            if pending is None
            else {
                "session": pending.session,
                "sequence": pending.sequence,
                "lapsed": pending.lapsed,
                "quotas": _quotas(pending.quotas),
                "bindings": _bindings(pending.bindings),
            },
            "in_force": _quotas(agent.quotas),
            "bindings": _bindings(agent._in_force[1]),
            "lease": None if lease is None else [round(lease.ends * 1e9), lease.session, lease.sequence],
            "counters": {name: agent.counters[name] for name in COUNTERS},
        }


def slice_use(use: Use) -> ran_pb2.SliceUse:
    names = ("slice", "direction", "max_new_prb", "new_prb_slots", "retx_prb_slots", "slots")
    return ran_pb2.SliceUse(**dict(zip(names, use, strict=True)))


def _quotas(quotas: Any) -> list[Any]:
    return [[name.encode().hex(), ul, dl] for name, (ul, dl) in quotas.items()]


def _bindings(bindings: Any) -> list[Any]:
    return [[ue.encode().hex(), name.encode().hex()] for ue, name in bindings.items()]


def decoded(data: bytes) -> Any:
    """A ControllerMessage in the words of the command ``decode``; ``too_large`` aside."""
    message = ran_pb2.ControllerMessage.FromString(data)
    body = message.WhichOneof("body")
    match body:
        case "welcome":
            m = message.welcome
            return ["welcome", m.session, m.protocol_version, m.report_period_ms, m.lease_ms]
        case "reject":
            m = message.reject
            return ["reject", m.reason.encode().hex(), m.controller_version, m.agent_version]
        case "hello_request":
            return ["hello_request", message.hello_request.reason.encode().hex()]
        case "set_quota":
            m = message.set_quota
            return [
                *("set_quota", m.session, m.sequence, m.lease_ms),
                [[q.slice.encode().hex(), q.ul_prb, q.dl_prb] for q in m.quotas],
                [[b.ue_id.encode().hex(), b.slice.encode().hex()] for b in m.bindings],
            ]
        case "release":
            return ["release", message.release.session, message.release.sequence]
    return [""]
