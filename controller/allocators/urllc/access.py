"""What a task waits for grants and NR slots, by the PRBs that its slice has: learned, control slot by slot.

A device in a cell waits for its turn before it transmits, the longer the fewer PRBs there are for each: y = a
+ c x in x = devices / PRBs. a and c are of a Bayesian linear regression on what a share of the tasks did not
exceed in each control slot, older ones forgotten; neither is below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

FORGET: Final = 0.8
IDLE_FORGET: Final = 0.9
"""In a control slot that shows nothing: what was learned of an outage must not keep devices off the air for
good."""
NOISE_MS: Final = 0.5
"""Standard deviation of what a control slot shows."""
BASE_SD_MS: Final = 3.0
SLOPE_MS: Final = 3.0
"""c, to begin with, and its standard deviation."""
MAX_X: Final = 100.0
DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class AccessDelay:
    """Weighted sums of 1, x, x^2, y and x y over what was seen."""

    n: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    y: float = 0.0
    xy: float = 0.0

    def observe(self, x: float, y_ms: float) -> AccessDelay:
        """With another control slot."""
        x = min(x, MAX_X)
        new = (1.0, x, x * x, y_ms, x * y_ms)
        return AccessDelay(
            *(round(FORGET * a + b, DIGITS) for a, b in zip(self.to_state(), new, strict=True))
        )

    def unseen(self) -> AccessDelay:
        """After a control slot in which nobody was seen to wait."""
        return AccessDelay(*(round(IDLE_FORGET * a, DIGITS) for a in self.to_state()))

    def line(self, base_ms: float) -> tuple[float, float]:
        """a and c in ms, where a is ``base_ms`` by what is known beforehand."""
        pa, pc, pn = 1.0 / BASE_SD_MS**2, 1.0 / SLOPE_MS**2, 1.0 / NOISE_MS**2
        aa, ac, cc = pa + pn * self.n, pn * self.x, pc + pn * self.xx
        ra, rc = pa * base_ms + pn * self.y, pc * SLOPE_MS + pn * self.xy
        determinant = aa * cc - ac * ac
        a, c = (cc * ra - ac * rc) / determinant, (aa * rc - ac * ra) / determinant
        if c < 0.0:
            a, c = ra / aa, 0.0
        elif a < 0.0:
            a, c = 0.0, max(rc / cc, 0.0)
        return max(a, 0.0), c

    def at(self, x: float, base_ms: float) -> float:
        """ms at so many devices a PRB, and what a control slot may differ by."""
        a, c = self.line(base_ms)
        return a + c * min(x, MAX_X) + NOISE_MS

    def to_state(self) -> list[float]:
        return [self.n, self.x, self.xx, self.y, self.xy]

    @classmethod
    def from_state(cls, state: Sequence[float]) -> AccessDelay:
        """ValueError for what no observations give."""
        numbers = [float(s) for s in state]
        if len(numbers) != 5 or not all(isfinite(s) and s >= 0.0 for s in numbers):
            raise ValueError(f"access delay {list(state)} is not what can be")
        return cls(*numbers)
