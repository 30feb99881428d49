"""What the configuration may say of a urllc slice."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.allocators.urllc.options import UrllcOptions


def test_by_default_the_papers_edge_and_deadline() -> None:
    o = UrllcOptions()
    assert (o.deadline_ms, o.edge_ghz, o.cache_kbit, o.theta) == (10.0, 30.0, 60.0, 1e-26)
    assert o.ends_early


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deadline_ms", 0.0),
        ("deadline_ms", float("nan")),
        ("error", 0.5),
        ("error", 0.0),
        ("edge_ghz", -1.0),
        ("cache_kbit", -1.0),
        ("confidence", 0.5),
        ("confidence", 1.0),
        ("on_time", 1.1),
        ("bandwidth", "equal"),
        ("twin", "perfect"),
        ("deadline", 10.0),
    ],
)
def test_what_cannot_be_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        UrllcOptions.model_validate({key: value})
