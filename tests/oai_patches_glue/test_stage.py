"""How the glue's allocation stage shares an NR slot out (``oai_patches/glue/src/stage.c``), on a made-up gNB
(``oai_patches/glue/tests/toy_pipeline.c``) and the agent's own plan."""

from __future__ import annotations

import ctypes as c
import random
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.oai_patches.build import build

TESTS = Path(__file__).parents[2] / "oai_patches" / "glue" / "tests"
N_PRB, MIN_PRB, MAX_PRB = 106, 5, 275
UL, DL = 0, 1
DATA = 0x3FFC  # symbols 2 to 13
KEEPS, IGNORES_THE_MAP, TAKES_TOO_MUCH, GRANTS_TOO_OFTEN = 0, 1, 2, 3


class Candidate(c.Structure):
    _fields_ = [
        ("number", c.c_uint32),
        *(
            (name, c.c_uint16)
            for name in ("rnti", "bwp_start", "bwp_size", "symbols", "retx_prb", "want_prb")
        ),
        ("sst", c.c_uint8),
        ("sd", c.c_uint32),
        *((name, c.c_bool) for name in ("skipped", "signals", "scheduled")),
        ("start", c.c_uint16),
        ("size", c.c_uint16),
        ("calls", c.c_uint32),
        ("rest", c.c_uint8 * 700),
    ]


class Gnb(c.Structure):
    _fields_ = [
        ("fault", c.c_int),
        ("calls", c.c_uint32),
        ("most_candidates", c.c_uint32),
        ("n_free", c.c_uint32),
        ("max_grants", c.c_uint32),
        ("map", c.c_void_p),
    ]


class Use(c.Structure):
    _fields_ = [
        ("max_new_prb", c.c_uint32),
        ("slots", c.c_uint32),
        ("new_prb_slots", c.c_uint64),
        ("retx_prb_slots", c.c_uint64),
    ]


@dataclass
class Ue:
    """A candidate: in slice ``sd - 1`` by S-NSSAI, or in none (``sst`` 0); ``want`` PRBs of new data, none: a
    control element alone; or ``retx`` PRBs of a retransmission."""

    sd: int = 1
    want: int = 0
    retx: int = 0
    sst: int = 1
    signals: bool = False
    skipped: bool = False
    bwp: tuple[int, int] = (0, N_PRB)
    symbols: int = DATA


@dataclass
class Outcome:
    grants: dict[int, tuple[int, int]]
    """Number of the candidate -> first PRB and size."""
    calls: list[int]
    use: list[tuple[int, int]]
    """New and retransmitted PRBs of each range; the last is that of the UEs without a slice."""
    n_grants: int
    outside: int
    most_candidates: int
    stage_calls: int
    own_map: bool
    last_call: tuple[int, int]
    """Free PRBs and grants that the last call of the gNB's stage was told."""
    busy: set[int]


@dataclass
class Cell:
    library: c.CDLL
    quotas: Sequence[int]
    max_grants: int = 8
    fault: int = KEEPS
    busy: dict[int, int] = field(default_factory=dict)
    direction: int = DL
    n_prb: int = N_PRB
    bindings: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prb = (c.c_uint16 * max(len(self.quotas), 1))(*self.quotas)
        bound = (c.c_uint16 * max(len(self.bindings), 1))(*self.bindings)
        slices = (c.c_uint32 * max(len(self.bindings), 1))(*self.bindings.values())
        self.library.toy_quotas(prb, prb, len(self.quotas), bound, slices, len(self.bindings))

    def run(self, ues: Sequence[Ue], first_rnti: int = 0x4601) -> Outcome:
        candidates = (Candidate * max(len(ues), 1))()
        for k, u in enumerate(ues):
            candidates[k] = Candidate(
                k, first_rnti + k, *u.bwp, u.symbols, u.retx, u.want, u.sst, u.sd, u.skipped, u.signals
            )
            candidates[k].rest[699] = k % 251
        busy = (c.c_uint16 * MAX_PRB)(*(self.busy.get(prb, 0) for prb in range(MAX_PRB)))
        gnb, outside = Gnb(self.fault), c.c_uint32()
        n = self.library.toy_run(
            c.byref(gnb),
            self.direction,
            self.n_prb,
            MIN_PRB,
            candidates,
            len(ues),
            busy,
            self.max_grants,
            c.byref(outside),
        )
        after = candidates[: len(ues)]
        assert sorted(u.number for u in after) == list(range(len(ues))), "a candidate is lost or doubled"
        assert all(u.rest[699] == u.number % 251 for u in after), "a candidate was moved in part"
        grants = {u.number: (u.bwp_start + u.start, u.size) for u in after if u.scheduled}
        by_number = sorted(after, key=lambda u: u.number)
        taken = {prb for prb in range(MAX_PRB) if busy[prb] & DATA} - set(self.busy)
        use = []
        for k in range(len(self.quotas) + 1):
            used = Use()
            self.library.toy_use(k, self.direction, c.byref(used))
            assert used.slots == 1
            use.append((used.new_prb_slots, used.retx_prb_slots))
        own_map = gnb.map == c.addressof(busy)
        calls = [u.calls for u in by_number]
        return Outcome(
            grants,
            calls,
            use,
            n,
            outside.value,
            gnb.most_candidates,
            gnb.calls,
            own_map,
            (gnb.n_free, gnb.max_grants),
            taken,
        )


@pytest.fixture(scope="module")
def folder() -> Path:
    return build(TESTS)


@pytest.fixture(scope="module")
def library(folder: Path) -> c.CDLL:
    loaded = c.CDLL(str(folder / "libtoy_pipeline.so"))
    loaded.toy_run.restype = c.c_uint32
    loaded.stage_silent.restype = c.c_bool
    return loaded


def test_each_slice_s_candidates_keep_to_its_range_and_the_others_have_what_is_left(library: c.CDLL) -> None:
    out = Cell(library, [10, 20]).run([Ue(2, want=106), Ue(1, want=106), Ue(sst=0, want=106)])
    assert out.grants == {1: (0, 10), 0: (10, 20), 2: (30, 76)}
    assert out.use == [(10, 0), (20, 0), (76, 0)] and out.n_grants == 3 and out.outside == 0
    assert out.stage_calls == 3 and out.most_candidates == 1 and not out.own_map
    assert out.busy == set(range(106))


def test_without_quotas_the_gnb_s_stage_is_called_once_with_all_as_it_is(library: c.CDLL) -> None:
    out = Cell(library, []).run([Ue(k, want=20) for k in range(4)] + [Ue(retx=9)])
    assert out.stage_calls == 1 and out.most_candidates == 5 and out.own_map
    assert out.use == [(80, 9)] and out.n_grants == 5


def test_several_ues_of_a_slice_share_its_range_in_one_nr_slot(library: c.CDLL) -> None:
    out = Cell(library, [40]).run([Ue(want=15), Ue(want=15), Ue(want=15)])
    assert out.grants == {0: (0, 15), 1: (15, 15), 2: (30, 10)} and out.most_candidates == 3


def test_what_is_taken_in_the_middle_of_a_range_costs_only_its_own_prbs(library: c.CDLL) -> None:
    """The gNB's stage looks for the longest free run itself, for one UE after another."""
    cell = Cell(library, [40], busy=dict.fromkeys(range(18, 24), DATA))
    out = cell.run([Ue(want=40), Ue(want=40)])
    assert sorted(out.grants.values()) == [(0, 18), (24, 16)]


def test_the_gnb_s_stage_is_told_what_is_free_and_how_many_may_share_it(library: c.CDLL) -> None:
    """From July 2026 on OAI divides the free PRBs by the grants, and ends the gNB where they are few."""
    cell = Cell(library, [40], busy=dict.fromkeys(range(18, 24), DATA))
    assert cell.run([Ue(want=40), Ue(want=40)]).last_call == (34, 2)
    assert Cell(library, [40], max_grants=1).run([Ue(want=40), Ue(want=40)]).last_call == (40, 1)
    assert Cell(library, [10]).run([Ue(retx=3)]).last_call == (MIN_PRB, 1)
    assert Cell(library, []).run([Ue(want=40), Ue(want=40)]).last_call == (0, 8), "as the gNB says"
    assert Cell(library, [14]).run([Ue(want=40) for _ in range(3)]).last_call == (14, 2), "5 PRB for each"


def test_a_retransmission_that_does_not_fit_goes_out_beside_its_range(library: c.CDLL) -> None:
    before = library.toy_widened()
    out = Cell(library, [10, 10]).run([Ue(1, want=106), Ue(2, retx=30)])
    assert out.grants == {1: (10, 30), 0: (0, 10)} and out.use == [(10, 0), (0, 30), (0, 0)]
    assert library.toy_widened() - before == 20


def test_retransmissions_of_one_nr_slot_go_beside_each_other(library: c.CDLL) -> None:
    out = Cell(library, [20, 20]).run([Ue(1, retx=10), Ue(1, retx=10), Ue(2, want=20), Ue(1, retx=8)])
    assert sorted(out.grants[k] for k in (0, 1, 3))[0][0] == 0 and len(out.grants) == 4
    assert out.use[0] == (0, 28)


def test_an_s_nssai_that_no_slice_has_is_in_no_slice(library: c.CDLL) -> None:
    out = Cell(library, [50, 40]).run([Ue(9, want=20), Ue(1, want=106), Ue(0xFFFFFF, want=20, sst=2)])
    assert out.grants[1] == (0, 50) and sorted([out.grants[0], out.grants[2]]) == [(50, 20), (70, 20)]
    assert out.use == [(50, 0), (0, 0), (40, 0)]


def test_a_ue_without_s_nssai_is_in_the_slice_of_its_binding(library: c.CDLL) -> None:
    cell = Cell(library, [30, 20], bindings={0x4601: 1})
    assert cell.run([Ue(sst=0, want=106)]).grants == {0: (30, 20)}
    assert cell.run([Ue(1, want=106)]).grants == {0: (0, 30)}, "the S-NSSAI comes first"


def test_a_bandwidth_part_that_goes_beyond_the_carrier_ends_with_it(library: c.CDLL) -> None:
    out = Cell(library, [50]).run([Ue(retx=30, bwp=(90, 100)), Ue(retx=16, bwp=(90, 100))])
    assert out.grants == {1: (90, 16)} and out.outside == 0


def test_candidates_that_an_earlier_stage_dropped_are_not_handed_on(library: c.CDLL) -> None:
    out = Cell(library, [50]).run([Ue(want=10, skipped=True), Ue(want=10), Ue(want=10, skipped=True)])
    assert out.calls == [0, 1, 0] and out.grants == {1: (0, 10)}


def test_a_slice_without_candidates_leaves_its_range_idle(library: c.CDLL) -> None:
    out = Cell(library, [50, 50]).run([Ue(2, want=106)])
    assert out.grants == {0: (50, 50)} and out.use == [(0, 0), (50, 0), (0, 0)]


@pytest.mark.parametrize("quotas", [[30, 20], []])
def test_an_nr_slot_without_candidates_counts_for_every_range(library: c.CDLL, quotas: list[int]) -> None:
    Cell(library, quotas)
    library.toy_idle(DL)
    for k in range(len(quotas) + 1):
        for direction in (UL, DL):
            used = Use()
            library.toy_use(k, direction, c.byref(used))
            assert (used.slots, used.new_prb_slots, used.retx_prb_slots) == (direction == DL, 0, 0)


def test_a_full_map_gives_nothing_and_no_stage_is_called(library: c.CDLL) -> None:
    cell = Cell(library, [50, 50], busy=dict.fromkeys(range(0, N_PRB, 3), 0x3FFF))
    out = cell.run([Ue(1, want=106), Ue(2, retx=8), Ue(sst=0, want=3), Ue(1, signals=True)])
    assert out.grants == {} and out.stage_calls == 0 and out.use == [(0, 0)] * 3


def test_symbols_that_are_taken_on_every_prb_are_no_reason(library: c.CDLL) -> None:
    cell = Cell(library, [50], busy=dict.fromkeys(range(N_PRB), 0x3000))
    out = cell.run([Ue(want=106, symbols=0x0FFC), Ue(want=106)])
    assert out.grants == {0: (0, 50)}, "the other one needs what is taken"


@pytest.mark.parametrize("symbols", [(0x0FFC, DATA), (DATA, 0x0FFC)])
def test_a_prb_that_is_taken_for_one_candidate_is_taken_for_those_with_fewer_symbols(
    library: c.CDLL, symbols: tuple[int, int]
) -> None:
    """And a grant on the others is no fault of the gNB's."""
    cell = Cell(library, [40], busy=dict.fromkeys(range(10), 0x3000))
    out = cell.run([Ue(want=20, symbols=of) for of in symbols])
    assert sorted(out.grants.values()) == [(10, 20), (30, 10)] and out.outside == 0


def test_a_ue_is_silent_after_ten_frames_or_the_gnb_s_own_limit(library: c.CDLL) -> None:
    def silent(frame: int, last: int, limit: int) -> bool:
        return bool(library.stage_silent(frame, last, limit))

    assert [silent(frame, 1020, 0) for frame in (1020, 1023, 5, 6, 500)] == [False, False, False, True, True]
    assert not silent(119, 100, 20) and silent(120, 100, 20)


def test_no_more_grants_than_dcis(library: c.CDLL) -> None:
    for dcis in range(9):
        cell = Cell(library, [50, 40], max_grants=dcis)
        out = cell.run([Ue(1 + k % 2, want=5) for k in range(12)] + [Ue(sst=0, want=5)])
        assert len(out.grants) == out.n_grants == dcis
        assert dcis < 2 or 12 in out.grants, "one DCI is kept for the UEs without a slice"


def test_the_only_dci_of_a_narrow_carrier_goes_to_all_in_turn(library: c.CDLL) -> None:
    """OAI counts on one DCI for 24 PRB: below 48 PRB there is but one."""
    cell = Cell(library, [12, 12], max_grants=1, n_prb=24)
    grants: Counter[int] = Counter()
    for _ in range(30):
        grants.update(list(cell.run([Ue(1, want=24), Ue(2, want=24), Ue(sst=0, want=24)]).grants))
    assert set(grants) == {0, 1, 2} and all(9 <= n <= 11 for n in grants.values())


@pytest.mark.parametrize("n", [64, 65, 90])
def test_64_candidates_are_dealt_with_and_those_beyond_wait(library: c.CDLL, n: int) -> None:
    cell = Cell(library, [50, 50], max_grants=1000)
    out = cell.run([Ue(1 + k % 2, want=5) for k in range(n)])
    assert len(out.grants) == 20 and sum(out.calls[:64]) == 64 and not any(out.calls[64:])
    everyone = Cell(library, [], max_grants=1000).run([Ue(want=5) for _ in range(n)])
    assert everyone.most_candidates == n and len(everyone.grants) == 21


def test_a_stage_that_takes_too_much_is_seen_and_the_next_slice_does_not_collide(library: c.CDLL) -> None:
    for fault in (IGNORES_THE_MAP, TAKES_TOO_MUCH):
        cell = Cell(library, [20, 30], fault=fault)
        out = cell.run([Ue(1, want=20), Ue(2, want=30)])
        assert out.outside >= 1, "a fault of the gNB's is not counted"
        assert sum(new for new, _ in out.use) == sum(size for _, size in out.grants.values()), (
            "what was taken beyond the range is not told"
        )


def test_a_grant_below_the_slice_s_range_is_a_fault_on_free_prbs_too(library: c.CDLL) -> None:
    out = Cell(library, [20, 30], fault=IGNORES_THE_MAP).run([Ue(2, want=10)])
    assert out.grants == {0: (0, 10)} and out.outside == 1 and out.use[1] == (10, 0)


@pytest.mark.parametrize("quotas", [[20], []])
def test_a_stage_that_gives_prbs_twice_has_used_no_more_than_the_carrier(
    library: c.CDLL, quotas: list[int]
) -> None:
    """The controller refuses a report of more PRBs in an NR slot than there are."""
    out = Cell(library, quotas, fault=IGNORES_THE_MAP).run([Ue(want=N_PRB), Ue(want=N_PRB)])
    assert [size for _, size in out.grants.values()] == [N_PRB] * 2 and out.use[0] == (N_PRB, 0)


def test_a_stage_that_grants_more_than_there_are_dcis_is_called_no_more(library: c.CDLL) -> None:
    cell = Cell(library, [30, 30], max_grants=2, fault=GRANTS_TOO_OFTEN)
    out = cell.run([Ue(1, want=5) for _ in range(6)] + [Ue(2, want=5)])
    assert out.stage_calls <= 2 and max(out.calls) == 1


@pytest.mark.parametrize("direction", [UL, DL])
def test_the_slices_take_turns(library: c.CDLL, direction: int) -> None:
    cell = Cell(library, [20] * 5, max_grants=4, direction=direction)
    grants: Counter[int] = Counter()
    for _ in range(100):
        grants.update(list(cell.run([Ue(1 + k, want=20) for k in range(5)]).grants))
    assert len(grants) == 5 and all(79 <= n <= 81 for n in grants.values())


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_no_prb_is_given_twice_and_the_quotas_hold(library: c.CDLL, seed: int) -> None:
    draw = random.Random(seed)
    n_prb = draw.choice([24, 51, 106, 162, 273])
    n_slices = draw.randint(1, 6)
    cuts = sorted(draw.randint(0, n_prb) for _ in range(n_slices))
    sizes = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
    quotas = [size if size >= MIN_PRB else 0 for size in sizes]
    starts = [sum(quotas[:k]) for k in range(n_slices)]
    busy = dict.fromkeys(draw.sample(range(n_prb), draw.choice([0, 0, 3, n_prb // 3])), DATA)
    cell = Cell(library, quotas, draw.randint(0, 8), busy=busy, n_prb=n_prb, direction=draw.choice([UL, DL]))
    ues = [
        Ue(
            draw.randint(1, n_slices + 1),
            want=draw.choice([0, 3, 20, 106]),
            retx=draw.choice([0, 0, 0, 4, 25]),
            sst=draw.choice([0, 1, 1, 1]),
            signals=draw.random() < 0.2,
            skipped=draw.random() < 0.1,
            bwp=draw.choice([(0, n_prb), (0, n_prb), (0, min(24, n_prb)), (n_prb // 3, n_prb // 2)]),
        )
        for _ in range(draw.randint(0, 16))
    ]
    out = cell.run(ues)
    prbs = [prb for start, size in out.grants.values() for prb in range(start, start + size)]
    assert len(prbs) == len(set(prbs)) and not set(prbs) & set(busy) and max(prbs, default=0) < n_prb
    assert out.outside == 0 and out.busy == set(prbs)
    assert max(out.calls, default=0) <= 1 and len(out.grants) == out.n_grants <= cell.max_grants
    for k in range(n_slices):
        mine = [(i, *grant) for i, grant in out.grants.items() if ues[i].sst and ues[i].sd == k + 1]
        new = [(i, start, size) for i, start, size in mine if not ues[i].retx]
        assert sum(size for _, _, size in new) == out.use[k][0]
        assert sum(size for i, _, size in mine if ues[i].retx) == out.use[k][1]
        outside = [
            (i, size) for i, start, size in new if start < starts[k] or start + size > starts[k] + quotas[k]
        ]
        assert all(ues[i].signals and size == MIN_PRB for i, size in outside) and len(outside) <= 1


def test_the_stage_neither_allocates_nor_enters_the_kernel(folder: Path) -> None:
    done = subprocess.run(["ctest", "--output-on-failure"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_its_cost_is_printed_for_1_4_and_16_ues(folder: Path) -> None:
    out = subprocess.run([folder / "bench_stage"], capture_output=True, text=True, check=True).stdout
    assert [int(line.split(",")[1].split()[0]) for line in out.splitlines()] == [1, 4, 16]
