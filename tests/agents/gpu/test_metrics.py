from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from agents.gpu.emulated import EmulatedGpu
from agents.gpu.metrics import registry
from agents.gpu.service import EdgeAgent, serve
from wire.exposition import MetricsServer


@pytest.fixture
def agent() -> Iterator[EdgeAgent]:
    agent = serve("127.0.0.1:0", backend=[EmulatedGpu()])
    agent.start()
    yield agent
    agent.close()


def test_the_emulated_gpu_is_shown_as_a_real_one_is(agent: EdgeAgent) -> None:
    server = MetricsServer(registry(agent), "127.0.0.1:0", None)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as page:
            text = page.read().decode()
    finally:
        server.close()
    assert 'prbandit_agent_gpu_sm_mhz{gpu="GPU-emulated-0"} 1600.0' in text
    assert "# HELP prbandit_agent_errors_total GPU calls that failed, by error" in text
