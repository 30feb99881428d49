"""The prompt: ptpython with the controller in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ptpython.repl import PythonRepl

from controller.console.api import Controller
from controller.core.names import UnknownName
from controller.links.operator import CommandRefused, OperatorError

_GREETING = """\
controller.cells["{cell}"].slices, .decisions, .ues, .plot(), .mode = "shadow"
TAB completes, help(controller) says what there is, Ctrl-D ends; the controller goes on.
"""


class _Repl(PythonRepl):
    """What the controller says no to, and a name that is none, are told in a sentence."""

    def _handle_exception(self, e: BaseException) -> None:
        if isinstance(e, CommandRefused | OperatorError | UnknownName):
            self.app.output.write(f"{e}\n\n")
            self.app.output.flush()
            return
        super()._handle_exception(e)


def run(controller: Controller) -> None:
    """Read and carry out lines until Ctrl-D."""
    names: dict[str, Any] = {"__name__": "__main__", "controller": controller}
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "prbandit"
    history: str | None = str(state / "console-history")
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError:
        history = None
    repl = _Repl(get_globals=lambda: names, get_locals=lambda: names, history_filename=history)
    repl.enable_dictionary_completion = True
    repl.complete_while_typing = False  # each completion asks the controller
    repl.confirm_exit = False
    repl.terminal_title = f"prbandit console, {controller.operator}"
    print(repr(controller))
    print(_GREETING.format(cell=next(iter(controller.cells), "CELL")))
    repl.run()
