from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller import allocators
from tests.echo import PLUGIN


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution that brings echo along is there, for this process and those that it starts."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN), prepend=":")
    yield
    allocators.service.cache_clear()
