"""What Numba compiles works without a cache that can be written, or read, and says so once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is missing: pip install 'prbandit[emulator]'")

ROOT = Path(__file__).parents[2]
SOURCE = """
from wire.definitions.compiled import kept

@kept
def increment(x):
    return x + 1

@kept(nogil=True)
def increment_twice(x):
    return x + 2

if __name__ == "__main__":
    print(increment(1), increment_twice(1), sum(increment_twice.stats.cache_hits.values()))
"""
COMPILED = (
    "agents.emulator.kernel",
    *(f"controller.allocators.vr.{name}" for name in ("menus", "moves", "tables")),
    *(f"controller.allocators.urllc.{name}" for name in ("barrier", "bound")),
    *(
        f"controller.allocators.video.{name}"
        for name in ("users", "frontier", "opinion", "user_level", "player", "playback")
    ),
)


def run(folder: Path, *arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Where neither the tree nor a home can be written: a file stands in place of both folders."""
    nowhere = folder / "file"
    nowhere.write_text("no folder")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, "HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere / "cache")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )


def module(tmp_path: Path) -> str:
    (tmp_path / "module.py").write_text(SOURCE)
    return "module.py"


def test_it_is_kept_where_it_can_be(tmp_path: Path) -> None:
    name = module(tmp_path)
    for hits in ("0", "1"):
        done = run(tmp_path, name, cache=tmp_path / "cache")
        assert done.stdout.split() == ["2", "3", hits] and not done.stderr


def without_a_folder(tmp_path: Path) -> Path:
    """``__pycache__`` beside the source cannot be made either."""
    (tmp_path / "__pycache__").write_text("no folder")
    return tmp_path / "file" / "cache"


def test_without_a_cache_it_works_and_one_warning_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, module(tmp_path), cache=without_a_folder(tmp_path))
    assert done.stdout.split() == ["2", "3", "0"]
    assert done.stderr.count("Numba has no cache here") == 1 and "NUMBA_CACHE_DIR" in done.stderr


def test_a_cache_that_is_damaged_is_as_none(tmp_path: Path) -> None:
    name, cache = module(tmp_path), tmp_path / "cache"
    run(tmp_path, name, cache=cache)
    for index in cache.rglob("*.nbi"):
        index.write_bytes(index.read_bytes()[:-9])
    done = run(tmp_path, name, cache=cache)
    assert done.stdout.split() == ["2", "3", "0"]
    assert done.stderr.count("Numba has no cache here") == 1


def test_the_code_of_another_signature_is_not_run(tmp_path: Path) -> None:
    """As two processes leave it that compile for different arguments at once: both write ``.1.nbc``."""
    (tmp_path / "module.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "from wire.definitions.compiled import kept\n"
        "@kept\n"
        "def tripled(x):\n"
        "    return x[0] * 3 + 1\n"
        "values = {'float': 2.0, 'int': 2}\n"
        "print(*(tripled(np.array([values[kind]])) for kind in sys.argv[1:]))\n"
        "print(sum(tripled.stats.cache_hits.values()))\n"
    )
    caches = {kind: tmp_path / kind for kind in ("float", "int")}
    for kind, cache in caches.items():
        run(tmp_path, "module.py", kind, cache=cache)
    (of_float,), (of_int,) = (list(cache.rglob("*.1.nbc")) for cache in caches.values())
    of_float.write_bytes(of_int.read_bytes())
    for hits in ("0", "2"):
        done = run(tmp_path, "module.py", "float", "int", cache=caches["float"])
        assert done.stdout.split() == ["7.0", "7", hits]


def test_no_module_asks_numba_for_a_cache_by_itself() -> None:
    for room in ("agents", "controller"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "cache=True" not in text and '"cache": True' not in text, path


def test_every_compiled_module_is_imported_without_a_cache(tmp_path: Path) -> None:
    """As Numba finds it in a tree of another user: by a class of locations that has none."""
    code = (
        "from numba.core import caching\n"
        "caching.CompileResultCacheImpl._locator_classes = []\n"
        "import importlib, warnings\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        f"    for name in {COMPILED!r}:\n"
        "        importlib.import_module(name)\n"
        "print(sum('Numba has no cache here' in str(w.message) for w in seen))\n"
    )
    assert run(tmp_path, "-c", code, cache=tmp_path / "cache").stdout.split() == ["1"]
