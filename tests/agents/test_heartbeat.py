from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from agents.heartbeat import check_heartbeat, write_heartbeat


def test_a_fresh_heartbeat_is_healthy_and_holds_the_statistics(tmp_path: Path):
    path = tmp_path / "beat.json"
    write_heartbeat(path, {"nr_slot": 3})
    write_heartbeat(path, {"nr_slot": 4})
    assert json.loads(path.read_text()) == {"nr_slot": 4}
    assert check_heartbeat(path) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["beat.json"]


def test_an_old_or_missing_heartbeat_is_not_healthy(tmp_path: Path):
    path = tmp_path / "beat.json"
    assert "no heartbeat" in check_heartbeat(path)
    write_heartbeat(path, {})
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert "60 s old" in check_heartbeat(path, max_age_s=5)


def test_a_folder_that_takes_no_file_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError):
        write_heartbeat(tmp_path / "missing" / "beat.json", {})
