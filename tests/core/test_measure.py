"""An outcome, and what it says where nothing had been promised."""

from __future__ import annotations

import json

import pytest

from controller.core.measure import Lever, Measure, Outcome, Reason


def test_nothing_promised_is_written_and_a_promise_is_the_rule() -> None:
    assert Outcome(None, True).promised
    record = json.loads(json.dumps(Outcome(None, True, promised=False).to_record()))
    assert record["promised"] is False and record["met"] is None and record["busy"]
    for met in (0, 1, None):
        assert "promised" not in Outcome(met, True).to_record()


@pytest.mark.parametrize("met", [0, 1])
def test_a_promise_that_was_not_given_is_neither_kept_nor_missed(met: int) -> None:
    with pytest.raises(ValueError, match=f"met is {met} of a promise that was not given"):
        Outcome(met, True, promised=False)


def test_mistakes_in_an_outcome() -> None:
    good = Measure("m", "1", "higher", (1.0,), (1.0,), 1, 1)
    with pytest.raises(ValueError, match="neither 0 nor 1 nor None"):
        Outcome(2, True)
    with pytest.raises(ValueError, match="named twice"):
        Outcome(1, True, ("u",), (good, good))
    with pytest.raises(ValueError, match="not one value and one target for each user"):
        Outcome(1, True, (), (good,))
    with pytest.raises(ValueError, match="not finite"):
        Outcome(1, True, ("u",), (Measure("m", "1", "higher", (float("nan"),), (1.0,), 1, 1),))
    with pytest.raises(KeyError, match="other"):
        Outcome(1, True, ("u",), (good,)).measure("other")


def test_short_and_more_exclude_one_another() -> None:
    assert not [r for r in Reason if r.short and r.more]
    assert Outcome(1, True, unattributed={Lever.UL: Reason.RESCUED}).to_record()["unattributed"] == {
        "ul": "given more than asked for"
    }
