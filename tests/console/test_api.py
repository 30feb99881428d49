"""The console's objects, without a controller."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from controller.console.api import Cell, Controller, Hop, Slice


@pytest.fixture
def commands() -> Mock:
    return Mock()


@pytest.mark.parametrize(
    ("of", "name"),
    [("cell", "mod"), ("slice", "polcy"), ("hop", "budgets"), ("options", "metric"), ("slices", "policy")],
)
def test_an_attribute_that_is_not_there_cannot_be_assigned(commands: Mock, of: str, name: str) -> None:
    cell = Cell(commands, "cell-1")
    ar = Slice(cell, "ar")
    objects: dict[str, Any] = {
        "cell": cell,
        "slice": ar,
        "hop": Hop(ar, "ul"),
        "options": ar.options,
        "slices": cell.slices,
    }
    with pytest.raises(AttributeError, match=name):
        setattr(objects[of], name, "shadow")
    commands._command.assert_not_called()


def test_nor_of_the_controller(commands: Mock) -> None:
    controller = Controller("127.0.0.1:50063", lambda: commands, 10)
    try:
        with pytest.raises(AttributeError, match="mode"):
            controller.mode = "released"  # type: ignore[attr-defined]
    finally:
        controller.close()
