from __future__ import annotations

import subprocess
import sys

import pytest

WAITS = """
import signal, threading
from agents.stopping import on_stop_signal

stop = threading.Event()
on_stop_signal(stop.set)
with stop._cond:  # as in the middle of stop.set() or stop.is_set()
    signal.raise_signal(signal.{name})
    signal.raise_signal(signal.{name})
assert stop.wait(60)
print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signals_in_the_middle_of_an_event_stop_all_the_same(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITS.format(name=name)], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_a_stop_is_called_once() -> None:
    script = """
import signal, time
from agents.stopping import on_stop_signal

told = []
on_stop_signal(lambda: told.append(1))
for _ in range(100):
    signal.raise_signal(signal.SIGTERM)
while not told:
    time.sleep(0.01)
print(len(told))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
