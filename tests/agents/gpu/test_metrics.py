from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from agents.gpu.device import GpuLost, MissingGpu, Reading
from agents.gpu.emulated import EmulatedGpu, EmulatedGpuSpec
from agents.gpu.metrics import registry
from agents.gpu.service import EdgeAgent, serve
from wire.exposition import MetricsServer

WAIT_S = 30.0


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
    assert 'prbandit_agent_gpu_clock_hertz{gpu="GPU-emulated-0"} 1.6e+09' in text
    assert 'prbandit_agent_gpu_hang_seconds{gpu="GPU-emulated-0"} 0.0' in text
    assert "# HELP prbandit_agent_errors_total GPU calls that failed, by error" in text


def scraped(agent: EdgeAgent) -> dict[str, float]:
    lines = generate_latest(registry(agent)).decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[0] != "#")}


def test_a_scrape_does_not_wait_for_a_gpu_that_hangs_and_tells_for_how_long_it_does() -> None:
    goes_on = threading.Event()

    class Hanging(EmulatedGpu):
        def read(self) -> Reading:
            assert goes_on.wait(2 * WAIT_S)
            return super().read()

    gpus = [Hanging(EmulatedGpuSpec(uuid="A")), EmulatedGpu(EmulatedGpuSpec(uuid="B"))]
    agent = serve("127.0.0.1:0", backend=gpus)
    agent.start()
    try:
        end = time.monotonic() + WAIT_S
        while True:
            page = scraped(agent)
            assert page['prbandit_agent_gpu_up{gpu="A"}'] == 0
            assert 'prbandit_agent_gpu_clock_hertz{gpu="A"}' not in page
            if (
                page['prbandit_agent_gpu_hang_seconds{gpu="A"}'] >= 1
                and page['prbandit_agent_gpu_up{gpu="B"}']
                and page['prbandit_agent_errors_total{error="gpu_hangs"}']
            ):
                break
            assert time.monotonic() < end
        assert page['prbandit_agent_gpu_clock_hertz{gpu="B"}'] == 1.6e9
        assert page['prbandit_agent_gpu_hang_seconds{gpu="B"}'] == 0
        goes_on.set()
        while not (page := scraped(agent))['prbandit_agent_gpu_up{gpu="A"}']:
            assert time.monotonic() < end + WAIT_S
        assert page['prbandit_agent_gpu_hang_seconds{gpu="A"}'] == 0
    finally:
        goes_on.set()
        agent.close()


def test_a_gpu_that_cannot_be_opened_is_shown_as_down(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = GpuLost("lost")

    def open_it() -> EmulatedGpu:
        raise lost

    monkeypatch.setattr(
        "agents.gpu.service.open_devices",
        lambda *_: ((EmulatedGpu(),), (MissingGpu("0", lost, open_it),)),
    )
    agent = serve("127.0.0.1:0")
    agent.start()
    try:
        page = scraped(agent)
    finally:
        agent.close()
    assert page['prbandit_agent_gpu_up{gpu="0"}'] == 0
    assert page['prbandit_agent_errors_total{error="gpu_lost"}'] >= 1
    assert page["prbandit_agent_release_errors_total"] >= 1
