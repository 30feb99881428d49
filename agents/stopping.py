"""SIGTERM and SIGINT end a daemon."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Log the first SIGTERM or SIGINT that comes and call ``stop``, once. To be called in the main thread.

    It is called on a thread of its own: a handler runs in the middle of what the main thread does, which may
    be to hold the very lock that ``stop`` needs (that of an Event, for two signals at once).
    """
    came: SimpleQueue[int] = SimpleQueue()  # of all queues the one that a handler may put into

    def wait() -> None:
        number = came.get()
        log.info("%s: stopping", signal.Signals(number).name)
        stop()

    threading.Thread(target=wait, name="stop-signal", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: came.put(number))
