"""A heartbeat file: a live process rewrites it every second, a container's health check looks at its age."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_heartbeat(path: Path, stats: Mapping[str, Any]) -> None:
    """Write ``stats`` as JSON, so that a reader sees the old or the new file. Raises ``OSError``."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(stats) + "\n")
    scratch.replace(path)


def check_heartbeat(path: Path, *, max_age_s: float = 5.0) -> str:
    """Empty where the heartbeat is younger than ``max_age_s`` seconds, else what is wrong."""
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat at {path}: {error.strerror}"
    return "" if age_s <= max_age_s else f"the heartbeat at {path} is {age_s:.0f} s old"
