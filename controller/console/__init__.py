"""A running controller as Python objects: for the console, for scripts and for notebooks.

    from controller.console import attach

    with attach("127.0.0.1:50063") as controller:
        ar = controller.cells["cell-1"].slices["ar"]
        ar.policy = "ucb1"
        print(ar, ar.decisions["ul"].delay)

Attributes are read from the controller when they are asked for, assignments are commands to it; both go
through the operator API alone, and what it says no to is its own sentence (:class:`CommandRefused`, or
:class:`OperatorError` where it cannot be reached).
"""

from __future__ import annotations

from controller.console.api import Cell, Controller, Hop, Slice, attach
from controller.console.history import Column, Decisions
from controller.links.operator import CommandRefused, OperatorError

__all__ = [
    "Cell",
    "Column",
    "CommandRefused",
    "Controller",
    "Decisions",
    "Hop",
    "OperatorError",
    "Slice",
    "attach",
]
