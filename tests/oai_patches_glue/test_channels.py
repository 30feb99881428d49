"""Which logical channels of a UE the glue reports (``oai_patches/glue/src/channels.h``)."""

from __future__ import annotations

import ctypes as c
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "oai_patches"
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler (cc)")

SHIM = """
#include "channels.h"
uint32_t reported(const uint8_t *lcids, const uint32_t *bytes, uint32_t n, uint64_t total, uint8_t *out) {
  prbandit_channel from[CHANNELS_MOST];
  prbandit_ue ue = {.n_channels = 77};
  for (uint32_t i = 0; i < n; i++)
    from[i] = (prbandit_channel){lcids[i], bytes[i]};
  channels_fill(&ue, from, n, total);
  for (uint32_t i = 0; i < ue.n_channels; i++)
    out[i] = ue.channels[i].lcid;
  return ue.n_channels;
}
"""
Reported = Callable[[dict[int, int], int], list[int]]


@pytest.fixture(scope="module")
def reported_of(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """LCIDs that are reported of noted bytes (LCID -> bytes) where so many wait in all."""
    folder = tmp_path_factory.mktemp("channels")
    library = folder / "channels.so"
    includes = ["-I", str(ROOT / "glue" / "src"), "-I", str(ROOT / "agent" / "include")]
    command = [COMPILER or "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *includes]
    subprocess.run([*command, "-x", "c", "-", "-o", str(library)], input=SHIM, text=True, check=True)
    function = c.CDLL(str(library)).reported

    def call(noted: dict[int, int], total: int) -> list[int]:
        n, out = len(noted), (c.c_uint8 * 32)()
        lcids, counts = (c.c_uint8 * n)(*noted), (c.c_uint32 * n)(*noted.values())
        return list(out[: function(lcids, counts, n, c.c_uint64(total), out)])

    return call


@pytest.mark.parametrize(
    ("noted", "total", "reported"),
    [
        ({}, 0, []),
        ({4: 1200}, 1200, [4]),
        ({1: 45, 4: 1200}, 1245, [1, 4]),
        ({1: 45, 4: 1200}, 1200, [4]),  # the SRB has been empty since
        ({1: 45, 4: 1200}, 45, [1]),
        ({1: 45, 4: 1200}, 0, []),
        ({4: 1200}, 0, []),
        ({4: 1200}, 900, []),
        ({1: 45, 4: 45}, 45, []),  # which of the two?
        ({1: 45, 4: 1200}, 5000, []),
        ({1: 2**32 - 1, 4: 2**32 - 1}, 2**33 - 2, [1, 4]),
        ({lcid: 1 << lcid for lcid in range(1, 9)}, 0b100110100, [2, 4, 5, 8]),
    ],
)
def test_the_channels_that_are_reported_are_those_that_make_up_the_whole_queue(
    reported_of: Reported, noted: dict[int, int], total: int, reported: list[int]
) -> None:
    assert reported_of(noted, total) == reported


def test_of_more_than_eight_the_fullest_are_reported_in_their_order(reported_of: Reported) -> None:
    rng = random.Random(3)
    for n in range(9, 33):
        counts = rng.sample(range(1, 10_000), n)
        noted = dict(enumerate(counts, 1))
        fullest = sorted(noted, key=noted.__getitem__)[-8:]
        assert reported_of(noted, sum(counts)) == sorted(fullest)


def test_of_more_than_eight_none_is_reported_where_they_do_not_make_up_the_whole_queue(
    reported_of: Reported,
) -> None:
    assert reported_of({lcid: lcid for lcid in range(1, 10)}, 44) == []
