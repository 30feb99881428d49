"""What a configuration may say of a slice."""

from __future__ import annotations

import pytest

from controller.allocators.mar.options import MarOptions


@pytest.mark.parametrize("given", [{"content_x": 1.0}, {"content_z": -0.5}])
def test_content_is_not_placed_along_one_axis_alone(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="content_x and content_z: neither can do without the other"):
        MarOptions.model_validate(given)
    both = MarOptions.model_validate({"content_x": 0.0, "content_z": 0.0, **given})
    assert (both.content_x, both.content_z) != (None, None)
