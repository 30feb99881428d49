from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge

from wire import keys, web
from wire.exposition import REFUSED, MetricsServer
from wire.roles import METRICS_READERS, PROMETHEUS, ROLES
from wire.security import InsecureAddress, KeyFileError, Tls


def page(server: MetricsServer, context: ssl.SSLContext | None = None) -> str:
    scheme = "http" if context is None else "https"
    url = f"{scheme}://127.0.0.1:{server.port}/metrics"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return str(answer.read().decode())


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("answer", "What is asked for", registry=registry).set(42)
    return registry


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[MetricsServer]:
    server = MetricsServer(registry, "127.0.0.1:0", None)
    yield server
    server.close()


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    pytest.importorskip("cryptography", reason="keys need the extra 'keys'")
    keys.create(tmp_path, cells=["cell-1"])
    return Tls(tmp_path, "edge-agent")


def trusted(tls: Tls, role: str = PROMETHEUS) -> ssl.SSLContext:
    """What a scraper with a certificate of ``role`` needs; "" for one without."""
    context = ssl.create_default_context(cafile=str(tls.folder / "ca.crt"))
    if role:
        shown = Tls(tls.folder, role)
        context.load_cert_chain(shown.certificate_file, shown.key_file)
    return context


def refused(why: str) -> float:
    return REFUSED.labels(why)._value.get()


def test_the_registry_is_served(server: MetricsServer) -> None:
    assert "# HELP answer What is asked for" in page(server) and "answer 42.0" in page(server)


def test_a_connection_that_says_nothing_holds_up_no_scrape(
    registry: CollectorRegistry, server: MetricsServer, tls: Tls
) -> None:
    secure = MetricsServer(registry, "127.0.0.1:0", tls)
    try:
        for served, context in ((server, None), (secure, trusted(tls))):
            with socket.create_connection(("127.0.0.1", served.port)):
                assert "answer 42.0" in page(served, context)
    finally:
        secure.close()


def test_silent_connections_are_bounded_and_end(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 0.2)
    server = MetricsServer(registry, "127.0.0.1:0", None)
    before = refused("late"), refused("crowded")
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    end = time.monotonic() + 30
    while True:
        try:
            assert "answer 42.0" in page(server)
            break
        except OSError:
            assert time.monotonic() < end, "the silent connections stayed"
            time.sleep(0.05)
    for connection in silent:
        connection.settimeout(10)
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    late, crowded = refused("late") - before[0], refused("crowded") - before[1]
    assert late > 0 and crowded > 0 and late + crowded >= 40
    server.close()


@pytest.mark.parametrize("secure", [False, True])
def test_requests_that_come_byte_by_byte_end_and_shut_nobody_out(
    registry: CollectorRegistry, tls: Tls, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 0.5)
    server = MetricsServer(registry, "127.0.0.1:0", tls if secure else None)
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(web.MAX_REQUESTS)]
    stop = threading.Event()

    def drip() -> None:
        # Of a request, or of what may still become a ClientHello.
        data = itertools.cycle(b"\x16\x03\x01\x40\x00" if secure else b"GET /" + b"a" * 1000)
        open_ = set(slow)
        while open_ and not stop.wait(0.02):
            byte = bytes([next(data)])
            for connection in list(open_):
                try:
                    connection.sendall(byte)
                except OSError:
                    open_.discard(connection)
        ended.extend(set(slow) - open_)

    ended: list[socket.socket] = []
    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        assert "answer 42.0" in page(server, trusted(tls) if secure else None)
        dripping.join(20.0)
        assert len(ended) == len(slow)
    finally:
        stop.set()
        dripping.join()
        for connection in slow:
            connection.close()
        server.close()


@pytest.mark.parametrize("role", ["", *ROLES])
def test_with_keys_the_page_is_for_its_readers_alone(
    registry: CollectorRegistry, tls: Tls, role: str
) -> None:
    server = MetricsServer(registry, "127.0.0.1:0", tls)
    why = "denied" if role else "no TLS handshake"
    before = refused(why)
    try:
        if role in METRICS_READERS:
            assert "answer 42.0" in page(server, trusted(tls, role))
            assert refused(why) == before
        else:
            with pytest.raises(OSError, match="403" if role else "certificate required|EOF|reset|closed"):
                page(server, trusted(tls, role))
            assert refused(why) == before + 1
    finally:
        server.close()


def test_a_stranger_certificate_gets_no_page(registry: CollectorRegistry, tls: Tls, tmp_path: Path) -> None:
    keys.create(tmp_path / "stranger", cells=[])
    context = trusted(tls, "")
    strange = Tls(tmp_path / "stranger", PROMETHEUS)
    context.load_cert_chain(strange.certificate_file, strange.key_file)
    server = MetricsServer(registry, "127.0.0.1:0", tls)
    try:
        with pytest.raises(OSError):
            page(server, context)
        assert "answer 42.0" in page(server, trusted(tls))
    finally:
        server.close()


def test_beyond_loopback_metrics_need_tls(registry: CollectorRegistry) -> None:
    with pytest.raises(InsecureAddress, match=r"--metrics.*--keys"):
        MetricsServer(registry, "0.0.0.0:0", None)


def test_over_tls_the_certificate_is_checked_and_plain_http_refused(
    registry: CollectorRegistry, tls: Tls
) -> None:
    server = MetricsServer(registry, "0.0.0.0:0", tls)
    try:
        assert "answer 42.0" in page(server, trusted(tls))
        with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
            page(server, ssl.create_default_context())
        with pytest.raises(OSError):
            page(server)
    finally:
        server.close()


def test_a_missing_or_wrong_key_file_is_named(registry: CollectorRegistry, tls: Tls) -> None:
    (tls.folder / "edge-agent.key").write_bytes((tls.folder / "operator.key").read_bytes())
    with pytest.raises(KeyFileError, match=r"edge-agent\.crt and .*edge-agent\.key are not"):
        MetricsServer(registry, "127.0.0.1:0", tls)
    (tls.folder / "ca.crt").unlink()
    with pytest.raises(KeyFileError, match=r"ca\.crt is missing"):
        MetricsServer(registry, "127.0.0.1:0", tls)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "localhost", "http://127.0.0.1:9464"]
)
def test_an_address_that_is_none_is_refused(registry: CollectorRegistry, address: str) -> None:
    with pytest.raises(ValueError, match=rf"--metrics: address '{address}' is not HOST:PORT"):
        MetricsServer(registry, address, None)


@pytest.mark.parametrize("address", [":9464", "*:9464"])
def test_a_wildcard_is_told_its_address(registry: CollectorRegistry, tls: Tls, address: str) -> None:
    with pytest.raises(ValueError, match=r"--metrics: address .* 0\.0\.0\.0 is every address of this host"):
        MetricsServer(registry, address, tls)


def test_an_address_in_use_is_named(registry: CollectorRegistry, server: MetricsServer) -> None:
    with pytest.raises(OSError, match=rf"--metrics: cannot listen on 127.0.0.1:{server.port}"):
        MetricsServer(registry, f"127.0.0.1:{server.port}", None)


def test_close_ends_the_server_and_may_be_repeated(server: MetricsServer) -> None:
    server.close()
    server.close()
    with pytest.raises(OSError):
        page(server)


def test_the_configuration_of_prometheus_opens_the_page(registry: CollectorRegistry, tls: Tls) -> None:
    """What deploy/prometheus says of TLS, done by hand."""
    path = Path(__file__).parents[2] / "deploy/prometheus/prometheus.yml"
    for job in yaml.safe_load(path.read_text())["scrape_configs"]:
        settings = job["tls_config"]
        ca, certificate, key = (
            tls.folder / Path(settings[name]).name for name in ("ca_file", "cert_file", "key_file")
        )
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        server = MetricsServer(registry, "127.0.0.1:0", Tls(tls.folder, settings["server_name"]))
        try:
            with (
                socket.create_connection(("127.0.0.1", server.port)) as plain,
                context.wrap_socket(plain, server_hostname=settings["server_name"]) as secure,
            ):
                secure.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                assert b" 200 " in secure.recv(64), job["job_name"]
        finally:
            server.close()
