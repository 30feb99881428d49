"""How the glue shares an NR slot out (``oai_patches/glue/src/passes.c``)."""

from __future__ import annotations

import ctypes as c
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

GLUE = Path(__file__).parents[2] / "oai_patches" / "glue"
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler (cc)")

N_PRB, MIN_PRB = 106, 5


class Range(c.Structure):
    _fields_ = [("start", c.c_uint16), ("size", c.c_uint16)]


class CUe(c.Structure):
    _fields_ = [
        ("ue", c.c_void_p),
        ("range", c.c_uint32),
        ("reach", Range),
        ("retx_prb", c.c_uint16),
        ("waits", c.c_bool),
        ("signals", c.c_bool),
        ("new_prb", c.c_uint16),
        ("sent_retx_prb", c.c_uint16),
        ("served", c.c_bool),
    ]


class CSlot(c.Structure):
    _fields_ = [
        ("n_prb", c.c_uint16),
        ("min_prb", c.c_uint16),
        ("finds_runs", c.c_bool),
        ("top_is_lost", c.c_bool),
        ("blind_pregrant", c.c_bool),
        ("max_grants", c.c_uint32),
        ("turn", c.POINTER(c.c_uint32)),
        ("ranges", c.POINTER(Range)),
        ("n_ranges", c.c_uint32),
    ]


class Use(c.Structure):
    _fields_ = [("new_prb", c.c_uint32), ("retx_prb", c.c_uint32), ("widened_prb", c.c_uint32)]


RUN = c.CFUNCTYPE(None, c.c_void_p, c.POINTER(c.POINTER(CUe)), c.c_uint32, Range, c.POINTER(c.c_bool))


@dataclass
class Ue:
    """A UE as the test knows it: ``want`` PRBs of new data, ``retx`` PRBs at most of a retransmission, of
    which ``spared`` turn out not to be needed. ``pregrant``: an empty buffer due for a smallest grant."""

    range: int
    want: int = 0
    retx: int = 0
    spared: int = 0
    pregrant: bool = False
    signals: bool = False
    reach: tuple[int, int] = (0, N_PRB)


@dataclass
class Grant:
    ue: int
    start: int
    size: int
    retx: bool


@dataclass
class Outcome:
    grants: list[Grant]
    passes: list[list[int]]
    use: list[tuple[int, int, int]]
    n_grants: int
    windows: list[tuple[int, int]]


@dataclass
class Cell:
    library: c.CDLL
    ranges: list[tuple[int, int]]
    max_grants: int = 8
    top_is_lost: bool = False
    blind_pregrant: bool = False
    busy: set[int] = field(default_factory=set)
    turn: c.c_uint32 = field(default_factory=lambda: c.c_uint32(1))

    def share(self, ues: list[Ue]) -> Outcome:
        """One NR slot, with a scheduler as blunt as OAI's: it starts at the first free PRB of the window,
        never gives less than the minimum, and does not look where a retransmission ends. A blind one gives
        pre-grants before all data, and does not look where they end either."""
        grants: list[Grant] = []
        passes: list[list[int]] = []
        windows: list[tuple[int, int]] = []

        def run(_context: int, chosen: c.Array[CUe], n: int, window: Range, busy: c.Array[c.c_bool]) -> None:
            members = [int(chosen[k].contents.ue) - 1 for k in range(n)]
            passes.append(members)
            windows.append((window.start, window.size))
            at, end = window.start, window.start + window.size
            for k in sorted(range(n), key=lambda k: not ues[members[k]].pregrant):
                index = members[k]
                ue, out = ues[index], chosen[k].contents
                room = end - at
                too_high = self.top_is_lost and at + MIN_PRB >= ue.reach[0] + ue.reach[1]
                if ue.retx and room > 0:
                    out.sent_retx_prb = size = ue.retx - ue.spared
                elif ue.pregrant and room >= (1 if self.blind_pregrant else MIN_PRB) and not too_high:
                    out.new_prb = size = MIN_PRB
                elif ue.want and room >= MIN_PRB and not too_high:
                    out.new_prb = size = max(MIN_PRB, min(ue.want, room))
                else:
                    continue
                grants.append(Grant(index, at, size, bool(ue.retx)))
                for prb in range(at, at + size):
                    busy[prb] = True
                at += size

        c_ues = (CUe * max(len(ues), 1))(
            *(
                CUe(k + 1, u.range, Range(*u.reach), u.retx, u.want > 0 or u.pregrant, u.signals)
                for k, u in enumerate(ues)
            )
        )
        c_ranges = (Range * len(self.ranges))(*(Range(*r) for r in self.ranges))
        busy = (c.c_bool * N_PRB)(*(prb in self.busy for prb in range(N_PRB)))
        use = (Use * len(self.ranges))()
        slot = CSlot(
            N_PRB,
            MIN_PRB,
            False,
            self.top_is_lost,
            self.blind_pregrant,
            self.max_grants,
            c.pointer(self.turn),
            c_ranges,
            len(self.ranges),
        )
        n = self.library.passes_share(c.byref(slot), busy, c_ues, len(ues), use, RUN(run), None)
        return Outcome(grants, passes, [(u.new_prb, u.retx_prb, u.widened_prb) for u in use], n, windows)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> c.CDLL:
    out = tmp_path_factory.mktemp("glue") / "passes.so"
    agent = GLUE.parent / "agent" / "include"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC", f"-I{agent}"]
    subprocess.run([str(COMPILER), *flags, str(GLUE / "src" / "passes.c"), "-o", str(out)], check=True)
    loaded = c.CDLL(str(out))
    loaded.passes_share.restype = c.c_uint32
    return loaded


def test_a_slice_keeps_to_its_range_and_the_others_use_all_that_is_left(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 10), (10, 20), (30, 76)])
    out = cell.share([Ue(0, want=106), Ue(2, want=106)])
    assert [(g.ue, g.start, g.size) for g in out.grants] == [(0, 0, 10), (1, 10, 96)]
    assert out.use == [(10, 0, 0), (0, 0, 0), (96, 0, 0)] and out.n_grants == 2


def test_the_longest_free_run_is_used_not_the_first(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 40), (40, 66)], busy={2, 3, 4})
    assert [(g.start, g.size) for g in cell.share([Ue(0, want=106)]).grants] == [(5, 35)]


def test_a_range_below_the_smallest_grant_gets_nothing(library: c.CDLL) -> None:
    out = Cell(library, [(0, 4), (4, 102)]).share([Ue(0, want=50)])
    assert out.grants == [] and out.windows == [(0, 0)]
    assert Cell(library, [(0, 5), (5, 101)]).share([Ue(0, want=50)]).use[0] == (5, 0, 0)


def test_a_retransmission_that_does_not_fit_goes_out_beside_its_range(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 10), (10, 10), (20, 86)])
    out = cell.share([Ue(1, retx=30), Ue(0, want=106)])
    assert out.grants[0] == Grant(0, 10, 30, True)
    assert out.use[1] == (0, 30, 20) and out.use[0] == (10, 0, 0)


def test_a_widened_retransmission_keeps_as_much_of_its_range_as_it_can(library: c.CDLL) -> None:
    out = Cell(library, [(0, 40), (40, 20), (60, 46)], busy=set(range(40, 53))).share([Ue(1, retx=10)])
    assert out.grants == [Grant(0, 53, 10, True)] and out.use[1] == (0, 10, 3)


def test_two_retransmissions_of_a_slice_do_not_overlap(library: c.CDLL) -> None:
    out = Cell(library, [(0, 10), (10, 96)]).share([Ue(0, retx=8), Ue(0, retx=8)])
    assert sorted((g.start, g.size) for g in out.grants) == [(0, 8), (8, 8)]
    assert out.use[0] == (0, 16, 6)


def test_a_retransmission_that_fits_nowhere_waits(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 10), (10, 96)], busy=set(range(5, 100)))
    assert cell.share([Ue(0, retx=8)]).passes == []


@pytest.mark.parametrize("top_is_lost", [False, True])
def test_a_ue_without_a_slice_is_served_first_where_the_quotas_leave_nothing(
    library: c.CDLL, top_is_lost: bool
) -> None:
    cell = Cell(library, [(0, 53), (53, 53), (106, 0)], top_is_lost=top_is_lost)
    out = cell.share([Ue(0, want=106), Ue(1, want=106), Ue(2, want=106)])
    first = out.grants[0]
    assert (first.ue, first.size, first.start) == (2, MIN_PRB, N_PRB - MIN_PRB - top_is_lost)
    assert out.use[0] == (53, 0, 0) and out.use[1][0] == first.start - 53


def test_a_ue_without_a_slice_has_the_whole_carrier_while_the_slices_are_idle(library: c.CDLL) -> None:
    out = Cell(library, [(0, 106), (106, 0)]).share([Ue(0), Ue(1, want=106)])
    assert out.grants == [Grant(1, 0, 106, False)]


def test_signalling_of_a_slice_without_prbs_gets_through_and_its_data_does_not(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 0), (0, 106)])
    assert cell.share([Ue(0, want=50)]).grants == []
    out = cell.share([Ue(0, want=50, signals=True), Ue(0, want=50, signals=True)])
    assert [g.size for g in out.grants] == [MIN_PRB]


def test_a_ue_that_reaches_only_part_of_the_carrier_is_not_cut_off(library: c.CDLL) -> None:
    """Before its dedicated bandwidth part a UE reaches CORESET 0 alone, which the slices may fill."""
    cell = Cell(library, [(0, 60), (60, 46)])
    out = cell.share([Ue(0, want=106), Ue(1, want=20, reach=(0, 48))])
    assert [(g.ue, g.start) for g in out.grants] == [(1, 43), (0, 0)]


def test_a_slice_at_the_very_top_is_moved_where_the_scheduler_can_start(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 96), (101, 5), (96, 5)], top_is_lost=True)
    out = cell.share([Ue(1, want=106)])
    assert [(g.start, g.size) for g in out.grants] == [(100, 5)]


def test_no_more_grants_than_dcis_and_one_is_kept_for_ues_without_a_slice(
    library: c.CDLL,
) -> None:
    cell = Cell(library, [(20 * k, 20) for k in range(4)] + [(80, 26)], max_grants=4)
    ues = [Ue(k % 4, want=5) for k in range(16)] + [Ue(4, want=5)]
    served: set[int] = set()
    for _ in range(64):
        out = cell.share(ues)
        assert len(out.grants) <= 4 and any(g.ue == 16 for g in out.grants)
        served |= {g.ue for g in out.grants}
    assert served == set(range(17))


def test_the_slices_take_turns_however_often_an_nr_slot_of_the_direction_comes(library: c.CDLL) -> None:
    """DSUUU has one DL slot in five. Five slices, four DCIs: nobody may be last every time."""
    cell = Cell(library, [(20 * k, 20) for k in range(5)] + [(100, 6)], max_grants=4, turn=c.c_uint32(0))
    ues = [Ue(k, want=20) for k in range(5)]
    grants = [0] * 5
    for nr_slot in range(100):
        if nr_slot % 5 == 0:
            for grant in cell.share(ues).grants:
                grants[grant.ue] += 1
    assert grants == [16] * 5


def test_no_slice_is_always_first_in_the_same_nr_slot_of_the_tdd_period(library: c.CDLL) -> None:
    """DSUUU has two NR slots with DL, of which the mixed one carries a fifth."""
    cell = Cell(library, [(0, 50), (50, 50), (100, 6)], max_grants=1, turn=c.c_uint32(0))
    first = Counter(
        (nr_slot % 2, cell.share([Ue(0, want=50), Ue(1, want=50)]).grants[0].ue) for nr_slot in range(64)
    )
    assert set(first.values()) == {16} and len(first) == 4


def test_the_ues_of_a_slice_take_turns_however_many_slices_there_are(library: c.CDLL) -> None:
    cell = Cell(library, [(20 * k, 20) for k in range(5)] + [(100, 6)], max_grants=4)
    ues = [Ue(k // 5, want=5) for k in range(25)]
    served = {grant.ue for _ in range(200) for grant in cell.share(ues).grants}
    assert served == set(range(25))


def test_a_ue_without_a_slice_that_was_idle_is_served_as_soon_as_its_queue_is_known(library: c.CDLL) -> None:
    """The slices take every DCI meanwhile, so it is in no pass. Each pass tells the queues of all UEs."""
    cell = Cell(library, [(25 * k, 25) for k in range(4)] + [(100, 6)], max_grants=4)
    ues = [Ue(k, want=25) for k in range(4)] + [Ue(4)]
    for _ in range(9):
        out = cell.share(ues)
        assert len(out.grants) == 4 and out.passes and all(4 not in members for members in out.passes)
    ues[4].want = 6
    assert any(g.ue == 4 for g in cell.share(ues).grants)


def test_a_retransmission_that_spares_prbs_of_its_window_counts_what_was_sent(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 30), (30, 76)])
    assert cell.share([Ue(0, retx=40, spared=15)]).use[0] == (0, 25, 0)
    assert cell.share([Ue(0, retx=40, spared=4)]).use[0] == (0, 36, 6)


def test_pre_grants_that_look_for_no_free_prbs_do_not_leave_the_window(library: c.CDLL) -> None:
    cell = Cell(library, [(0, 12), (12, 94)], blind_pregrant=True)
    out = cell.share([Ue(1, want=94), *(Ue(0, pregrant=True) for _ in range(4))])
    assert [(g.start, g.size) for g in out.grants] == [(0, 5), (5, 5), (10, 94)]
    assert out.windows[0] == (0, 12)


@pytest.mark.parametrize("seed", range(300))
def test_whatever_comes_no_prb_is_given_twice_and_the_ranges_hold(library: c.CDLL, seed: int) -> None:
    draw = random.Random(seed)
    cuts = sorted(draw.sample(range(N_PRB + 1), draw.randint(1, 5)))
    ranges = [(a, b - a) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)] + [(cuts[-1], N_PRB - cuts[-1])]
    cell = Cell(
        library,
        ranges,
        max_grants=draw.randint(0, 8),
        top_is_lost=draw.random() < 0.5,
        blind_pregrant=draw.random() < 0.5,
        turn=c.c_uint32(draw.randint(0, (1 << 32) - 1)),
        busy=set(draw.sample(range(N_PRB), draw.choice([0, 0, 5, 40]))),
    )
    last = len(ranges) - 1
    ues = [
        Ue(
            draw.randint(0, last),
            want=draw.choice([0, 3, 20, 106]),
            retx=draw.choice([0, 0, 0, 4, 25]),
            spared=draw.choice([0, 3]),
            pregrant=draw.random() < 0.2,
            signals=draw.random() < 0.3,
            reach=draw.choice([(0, 106), (0, 106), (0, 48), (30, 50)]),
        )
        for _ in range(draw.randint(0, 16))
    ]
    out = cell.share(ues)
    given = [prb for g in out.grants for prb in range(g.start, g.start + g.size)]
    assert len(given) == len(set(given)) and not set(given) & cell.busy
    assert all(0 <= prb < N_PRB for prb in given)
    assert len(out.grants) == out.n_grants <= cell.max_grants
    members = [k for each in out.passes for k in each]
    assert len(members) == len(set(members)), "a UE was in two passes"
    for r, (start, size) in enumerate(ranges):
        mine = [g for g in out.grants if ues[g.ue].range == r]
        assert sum(g.size for g in mine if not g.retx) == out.use[r][0]
        assert sum(g.size for g in mine if g.retx) == out.use[r][1]
        outside = [g for g in mine if g.start < start or g.start + g.size > start + size]
        if r != last:  # new data leaves a slice's range for a smallest grant alone
            new_outside = [g for g in outside if not g.retx]
            assert all(g.size == MIN_PRB or g.start == start - 1 for g in new_outside)
            assert sum(ues[g.ue].signals for g in new_outside) >= len(new_outside) - 1
        widened = sum(
            sum(prb < start or prb >= start + size for prb in range(g.start, g.start + g.size))
            for g in outside
            if g.retx
        )
        assert widened == out.use[r][2]
