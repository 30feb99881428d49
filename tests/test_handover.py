"""What an allocator knows of a user follows it into the cell where it begins: emulated, live, replayed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agents.emulator import applications
from agents.emulator.warmup import warm_up
from agents.gnb_mock.mock import GnbMock
from controller import allocators, config, sim
from controller.cell import Acted, ControlledCell
from controller.cli import cli
from controller.cli.ports import free_port
from controller.core.decision import Decision
from controller.core.observation import Flow, GpuReading, Observation
from controller.daemon import Daemon
from controller.handover import Handovers
from controller.journal import Journal
from controller.links import codec
from controller.links.qos import FlowBegin
from controller.scenario import cell_seed
from controller.scenario import testbed_spec as scenario_testbed
from controller.store.run import RunStore
from tests.e2e.harness import until
from tests.following import NAME
from wire.definitions.nr import TDD_PATTERNS

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
CARRIER = codec.CellFacts("", 106, 30, TDD_PATTERNS["DSUUU"])
SCENARIO = """
control: {control_slot_s: 1.0, guard_ms: 100.0, rescue: off, events: off}
cells:
  - {id: west, slices: [{id: s, service: following, ues: [ue-1, ue-2, ue-3]}]}
  - {id: east, slices: [{id: s, service: following, ues: [ue-1, ue-2, ue-3]}]}
emulation:
  duration_s: 90.0
  ues: 3
  flows: 0
  schedule: always
  mobility: {area_m: [120.0, 20.0], stations: [[30.0, 10.0], [90.0, 10.0]], hysteresis_db: 0.0}
  users: [{application: following, slice: s, count: 3}]
"""


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(allocators._SERVICES, NAME, "tests.following.service")
    monkeypatch.setitem(applications._APPLICATIONS, NAME, "tests.following.application:FollowingUsers")
    yield
    allocators.service.cache_clear()


class Memory:
    """A run record that keeps events and observations in lists."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.observations: list[Observation] = []

    def record_start(self, time_ns: int, cell: str, spec: Any, state: Any) -> int:
        return 1

    def record_slot(self, handle: int, observation: Observation, decision: Any, state: Any) -> None:
        self.observations.append(observation)

    def record_event(self, time_ns: int, cell: str, kind: str, text: str = "", data: Any = None) -> None:
        self.events.append((cell, kind, text))

    def flush(self, timeout_s: float) -> bool:
        return True

    def of(self, kind: str) -> list[tuple[str, str]]:
        return [(cell, text) for cell, k, text in self.events if k == kind]


class Face:
    fails = False

    def act(self, decision: Decision, bindings: Mapping[str, str]) -> Acted:
        if self.fails:
            raise OSError("nothing goes out")
        return Acted(1)

    def release(self) -> None:
        pass


class Cells:
    """Cells of one controller, without links; slices of each are called after it."""

    def __init__(self, *names: str, services: Mapping[str, str] | None = None, **how: str) -> None:
        of = dict.fromkeys(names, NAME) | dict(services or {})
        lines = [
            f"  - {{id: {n}, slices: [{{id: s-{n}, service: {of[n]}"
            + (f", how: {how[n]}" if n in how else "")
            + "}]}"
            for n in names
        ]
        text = "control: {control_slot_s: 1.0, rescue: off}\ncells:\n" + "\n".join(lines)
        self.memory = Memory()
        journal = Journal(store=self.memory, time_ns=lambda: T0)
        handovers, parsed = Handovers(journal), config.parse(text)
        self.cells = {n: ControlledCell(n, parsed, journal, Face(), handovers=handovers) for n in names}
        self.second = 0
        for cell in self.cells.values():
            cell.joined(1, CARRIER, T0)

    def begin(self, name: str, flow: str = "f") -> None:
        start = Flow(flow, "ue-1", f"s-{name}", 1e6, 1e6, T0 + self.second * S)
        self.cells[name].take(FlowBegin("host", start), float(self.second))

    def end(self, name: str, flow: str = "f") -> None:
        self.cells[name].take(codec.FlowEnd(flow, T0 + self.second * S), float(self.second))

    def close(self) -> dict[str, Observation]:
        """All cells close a control slot."""
        self.second += 1
        now = T0 + self.second * S
        return {n: c.close(now, GpuReading(1600), float(self.second))[0] for n, c in self.cells.items()}

    def seen(self, name: str) -> Any:
        loop = self.cells[name].loop
        assert loop is not None
        return loop.to_state()["slices"][f"s-{name}"]["allocator"]


def test_what_is_known_goes_along_once() -> None:
    c = Cells("west", "east")
    c.begin("west")
    assert all(not o.arrivals for o in c.close().values())
    c.close()
    c.end("west")
    c.begin("east")
    observations = c.close()
    assert observations["east"].arrivals == {"f": {"cell": "west", "seen": 2}}
    assert not observations["west"].arrivals
    assert c.seen("east") == {"f": 3}
    assert all(not o.arrivals for o in c.close().values())
    assert c.memory.of("handed_over") == [
        ("east", "flow f: from cell west, slice s-west to cell east, slice s-east")
    ]


def test_it_comes_from_where_the_flow_was_last() -> None:
    c = Cells("west", "east", "north")
    for slots, name in ((1, "west"), (2, "east"), (3, "west")):
        c.begin(name)
        for _ in range(slots):
            c.close()
        c.end(name)
    c.begin("north")
    assert c.close()["north"].arrivals == {"f": {"cell": "west", "seen": 1 + 2 + 3}}
    # Its host says it once more: it was here last.
    c.begin("north")
    assert not c.close()["north"].arrivals
    assert [cell for cell, _ in c.memory.of("handed_over")] == ["east", "west", "north"]


def test_a_name_that_begins_in_two_cells_at_once_is_known_in_neither() -> None:
    c = Cells("west", "east")
    c.begin("west")
    c.begin("east")
    assert all(not o.arrivals for o in c.close().values())
    assert c.seen("west") == c.seen("east") == {"f": 1}
    assert not c.memory.of("handed_over")


def test_flows_of_other_services_and_names_bring_nothing() -> None:
    c = Cells("west", "east", services={"east": "ar"})
    c.begin("west")
    c.begin("west", "g")
    c.close()
    c.begin("east")
    assert not c.close()["east"].arrivals
    c = Cells("west", "east")
    c.begin("west")
    c.close()
    c.begin("east", "g")
    assert not c.close()["east"].arrivals


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", "RuntimeError: of f nothing can be said"),
        ("large", r"ValueError: 20010 bytes are more than 16384"),
        ("no mapping", "TypeError: hand_over gave list, no mapping"),
        ("not finite", "ValueError: Out of range float values are not JSON compliant"),
    ],
)
def test_an_allocator_that_fails_harms_nobody_and_the_next_is_asked(how: str, says: str) -> None:
    c = Cells("west", "east", "north", west=how)
    c.begin("east")
    c.close()
    c.begin("west")
    c.close()
    c.begin("north")
    arrivals = c.close()["north"].arrivals
    assert arrivals == {"f": {"cell": "east", "seen": 2}}
    (text,) = [text for cell, text in c.memory.of("hand_over_failed") if cell == "north"]
    assert "from cell west, slice s-west" in text and says in text
    assert c.cells["north"].journal.counters.get("hand_over_failed_total", "north") == 1


def test_what_came_along_waits_for_a_control_slot_that_can_be_decided() -> None:
    c = Cells("west", "east")
    c.begin("west")
    c.close()
    c.begin("east")
    face = c.cells["east"].face
    assert isinstance(face, Face)
    face.fails = True
    with pytest.raises(OSError, match="nothing goes out"):
        c.cells["east"].close(T0 + 2 * S, GpuReading(1600), 2.0)
    face.fails = False
    assert c.close()["east"].arrivals == {"f": {"cell": "west", "seen": 1}}


def test_after_a_restart_flows_of_before_are_known_by_their_cell() -> None:
    c = Cells("west", "east")
    loop = c.cells["west"].loop
    assert loop is not None
    loop._slices["s-west"].allocator.load_state({"f": 7}, lambda _: b"")
    c.begin("east")
    assert c.close()["east"].arrivals == {"f": {"cell": "west", "seen": 7}}


def test_an_observation_keeps_arrivals_and_one_without_is_as_before() -> None:
    o = Observation(1, 0, 1, arrivals={"f": {"seen": 3, "of": [1.5, None]}})
    assert Observation.from_dict(json.loads(json.dumps(o.to_dict()))).arrivals == o.arrivals
    plain = Observation(1, 0, 1).to_dict()
    assert "arrivals" not in plain and Observation.from_dict(plain).arrivals == {}


def test_emulated_users_take_it_along_and_a_replay_decides_the_same(tmp_path: Path) -> None:
    file = tmp_path / "following.yaml"
    file.write_text(SCENARIO)
    folder = tmp_path / "run"
    command = ["experiment", str(file), "--duration", "60", "--run", str(folder), "--json"]
    CliRunner().invoke(cli, command, catch_exceptions=False)
    with RunStore.open(folder) as store:
        events = [e for e in store.events() if e.kind == "handed_over"]
        arrivals = [
            (start.cell, slot.observation.control_slot, dict(slot.observation.arrivals))
            for start in store.starts()
            for slot in store.slots(start.id)
            if slot.observation.arrivals
        ]
    assert len(events) >= 4 and len(arrivals) >= 4
    for cell, _, came in arrivals:
        assert all(of["cell"] != cell and of["seen"] > 0 for of in came.values())
    replayed = json.loads(CliRunner().invoke(cli, ["replay", str(folder), "--json"]).stdout)
    assert replayed["different"] == 0 and replayed["compared"] == 122
    # Everybody is known for as long as it has been there, wherever.
    seen: dict[str, int] = {}
    with RunStore.open(folder) as store:
        for cell in ("west", "east"):
            state = store.latest_state(cell)
            assert state is not None
            for flow, count in state["slices"]["s"]["allocator"].items():
                seen[flow] = max(seen.get(flow, 0), count)
    assert len(seen) == 3 and all(50 <= count <= 85 for count in seen.values())


def test_two_runs_hand_over_the_same() -> None:
    runs = []
    for _ in range(2):
        got: list[Any] = []
        parsed = config.parse(SCENARIO)
        sim.run(parsed, 2, duration_s=30, on_slot=lambda o, d, _l, got=got: got.append((d.cell, o.arrivals)))
        runs.append(got)
    assert runs[0] == runs[1] and any(arrivals for _, arrivals in runs[0])


def test_live_cells_hand_over_when_their_user_changes(tmp_path: Path) -> None:
    ran, qos = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    off = {f"links.{name}.address": None for name in ("edge", "operator", "metrics", "page")}
    c = config.parse(
        SCENARIO.replace("control_slot_s: 1.0", "control_slot_s: 0.3"),
        overrides={**off, "links.ran.address": ran, "links.qos.address": qos},
    )
    specs = {cell.id: scenario_testbed(c, 1, cell.id) for cell in c.cells}
    begins = sorted(
        (begin, name, user.flow)
        for name, spec in specs.items()
        for user in spec.users
        for begin, _ in user.active
        if begin > 10.0
    )
    at, name, flow = begins[0]
    stop = threading.Event()
    warm_up(specs["west"])
    daemon = Daemon(c, run_dir=tmp_path / "run")
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    epoch_ns = time.time_ns() - round((at - 2.0) * 1e9)
    try:
        with ExitStack() as mocks:
            for cell, spec in specs.items():
                seed = cell_seed(c, cell, 1)
                mocks.enter_context(GnbMock(spec, seed, ran_address=ran, qos_address=qos, epoch_ns=epoch_ns))
            until(lambda: time.time_ns() > epoch_ns + (at + 1.5) * 1e9, "the time of a handover")
    finally:
        stop.set()
        thread.join(20)
    with RunStore.open(tmp_path / "run") as store:
        texts = [e.text for e in store.events(name) if e.kind == "handed_over"]
        came = [
            (f.flow, (f.start_ns - epoch_ns) / 1e9, slot.observation.arrivals[f.flow]["seen"])
            for start in store.starts(name)
            for slot in store.slots(start.id)
            for f in slot.observation.flows
            if f.flow in slot.observation.arrivals
        ]
    assert any(f"flow {flow}: " in text and f"to cell {name}" in text for text in texts)
    # As long after the epoch as the emulated way has it: both cells have the same time.
    (first,) = [c for c in came if c[0] == flow][:1]
    assert first[1] == pytest.approx(at, abs=1e-3) and first[2] >= 2
