from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.gpu.emulated import EmulatedGpu
from agents.gpu.metrics import MetricsServer
from agents.gpu.service import EdgeAgent, serve
from wire import security


@pytest.fixture
def agent() -> Iterator[EdgeAgent]:
    agent = serve("127.0.0.1:0", backend=[EmulatedGpu()])
    agent.start()
    yield agent
    agent.close()


def test_the_emulated_gpu_is_shown_as_a_real_one_is(agent: EdgeAgent) -> None:
    server = MetricsServer(agent, "127.0.0.1:0", None)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as page:
            text = page.read().decode()
    finally:
        server.close()
    assert 'prbandit_agent_gpu_sm_mhz{gpu="GPU-emulated-0"} 1600.0' in text
    assert "# HELP prbandit_agent_errors_total GPU calls that failed, by error" in text


def test_metrics_beyond_loopback_need_keys(agent: EdgeAgent) -> None:
    with pytest.raises(security.InsecureAddress, match=r"--metrics.*--keys"):
        MetricsServer(agent, "0.0.0.0:0", None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":9465"])
def test_what_is_no_address_is_named(agent: EdgeAgent, address: str) -> None:
    with pytest.raises(ValueError, match="--metrics"):
        MetricsServer(agent, address, None)


def test_a_port_that_is_taken_is_named(agent: EdgeAgent) -> None:
    first = MetricsServer(agent, "127.0.0.1:0", None)
    try:
        with pytest.raises(OSError, match=f"--metrics: cannot listen on 127.0.0.1:{first.port}"):
            MetricsServer(agent, f"127.0.0.1:{first.port}", None)
    finally:
        first.close()


def test_with_keys_metrics_come_over_https(agent: EdgeAgent, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra keys is not installed")
    from wire import keys

    keys.create(tmp_path, cells=["cell-1"], hosts=[], days=1)
    server = MetricsServer(agent, "127.0.0.1:0", security.Tls(tmp_path, "edge-agent"))
    try:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        url = f"https://localhost:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=10, context=trusted) as page:
            assert b"prbandit_agent_gpu_up" in page.read()
    finally:
        server.close()
