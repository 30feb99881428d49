from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oai_patches.build import CLink, build_agent


@pytest.fixture(scope="session")
def agent_build() -> Path:
    return build_agent()


@pytest.fixture
def c_link(agent_build: Path) -> Iterator[CLink]:
    link = CLink(agent_build)
    yield link
    link.close()
