"""Processes with limits or signals of their own, without a function that runs in the fork.

A process that has used gRPC has threads that wake in a fork of it; now and then they end the child before it
becomes the command. So the command sets its limits itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

_SHIM = """
import json, os, resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
for limit, values in json.loads(sys.argv[1]).items():
    resource.setrlimit(getattr(resource, limit), values)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def python(arguments: Sequence[str], limits: Mapping[str, tuple[int, int]] | None = None) -> list[str]:
    """This Python with ``arguments``, under ``limits``: ``RLIMIT_...`` -> (soft, hard). SIGINT ends it."""
    return [sys.executable, "-c", _SHIM, json.dumps(dict(limits or {})), *arguments]
