"""The loopback rule, TLS and CURVE key files."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, keys
from wire.security import (
    SERVER_OPTIONS,
    InsecureAddress,
    KeyFileError,
    Kind,
    Tls,
    curve_client,
    curve_server,
    grpc_channel,
    grpc_server_add,
    is_loopback,
    key_faults,
    require_address,
    shared_ports,
)

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'prbandit[keys]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    keys.create(folder, cells=["cell-1", "cell-2"], hosts=["10.1.2.3", "edge.lab"], days=2)
    return folder


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:5555",
        "tcp://127.0.0.1:*",
        "tcp://[::1]:5555",
        "tcp://[::ffff:127.0.0.1]:5555",
        "tcp://10.0.0.1:0;127.0.0.1:5555",
        "ipc:///run/ran",
        "inproc://ran",
        "localhost:50051",
        "LOCALHOST:50051",
        "127.8.0.1:1",
        "[::1]:1",
        "::1",
        "127.0.0.1",
        "unix:/run/edge",
        "unix:///run/edge",
        "unix-abstract:edge",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "ipv6:[::1]:1",
        "http://localhost:9464/metrics",
    ],
)
def test_loopback_addresses_need_nothing(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:5555",
        "tcp://*:5555",
        "tcp://eth0:5555",
        "tcp://127.0.0.1:0;10.0.0.1:5555",
        "tcp://127.0.0.1.evil.example:1",
        "0.0.0.0:50051",
        "[::]:50051",
        "::",
        ":50051",
        "*:50051",
        "controller:50051",
        "localhost.lab:50051",
        "[::1]evil:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:2",
        "dns://127.0.0.1/edge.lab:1",
        "192.168.1.4",
        "http://10.0.0.1/127.0.0.1",
        "",
    ],
)
def test_other_addresses_are_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("tcp://0.0.0.0:5555", "zmq"),
        ("tcp://*:5555", "zmq"),
        ("tcp://eth0:5555", "zmq"),
        ("tcp://[::]:5555", "zmq"),
        ("0.0.0.0:50051", "grpc"),
        ("[::]:50051", "grpc"),
        ("dns:///edge.lab:1", "grpc"),
        ("controller:9464", "tcp"),
    ],
)
def test_an_address_beyond_loopback_is_refused_with_the_setting_that_is_missing(
    address: str, kind: Kind
) -> None:
    with pytest.raises(InsecureAddress) as caught:
        require_address("links.ran.address", address, kind, secured=False, missing="security.keys")
    assert str(caught.value).startswith(f"links.ran.address: {address} is not a loopback address and sec")
    require_address("links.ran.address", address, kind, secured=True, missing="security.keys")


@pytest.mark.parametrize(
    ("address", "kind", "why"),
    [
        ("127.0.0.1:5555", "zmq", "is not tcp://HOST:PORT"),
        ("ipc:///run/ran", "zmq", "is not tcp://HOST:PORT"),
        ("tcp://[::1]", "zmq", "a port is missing"),
        ("tcp://::1:5555", "zmq", "an IPv6 address stands in brackets"),
        ("tcp://127.0.0.1:65536", "zmq", "a port is 65535 at most"),
        ("tcp://127.0.0.1", "zmq", "is not tcp://HOST:PORT"),
        ("tcp://127.0.0.1:", "zmq", "a port is missing"),
        ("[::1]", "grpc", "a port is missing"),
        ("::1:50051", "grpc", "an IPv6 address stands in brackets, as in [::1]:5555"),
        ("[::1:50051", "grpc", "an IPv6 address stands in brackets"),
        ("[127.0.0.1]:50051", "grpc", "an IPv6 address stands in brackets"),
        ("tcp://127.0.0.1:50051", "grpc", "no tcp:// belongs before it"),
        ("http://127.0.0.1:9464", "tcp", "no http:// belongs before it"),
        ("127.0.0.1:-1", "grpc", "'-1' is no port"),
        ("127.0.0.1:\u0665", "tcp", "is no port"),
        ("127.0.0.256:1", "grpc", "127.0.0.256 is no IPv4 address"),
        ("two words:1", "grpc", "'two words' is no name of a host"),
        ("*:50051", "grpc", "0.0.0.0 is every address of this host"),
        ("", "grpc", "a port is missing"),
        ("127.0.0.1:0", "grpc", "nothing can be reached at port 0"),
    ],
)
def test_an_address_that_is_none_says_why(address: str, kind: Kind, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        require_address("--x", address, kind, secured=True, missing="--keys")
    assert str(caught.value).startswith(f"--x: address {address!r}") and why in str(caught.value)


def test_two_servers_on_one_port_clash_unless_their_hosts_differ() -> None:
    def clashes(*addresses: str) -> list[str]:
        kinds: dict[bool, Kind] = {True: "zmq", False: "grpc"}
        named = {f"s{i}": (a, kinds["://" in a]) for i, a in enumerate(addresses)}
        return list(shared_ports(named).items())

    assert clashes("tcp://127.0.0.1:5555", "127.0.0.1:5555") == [("s1", "s0")]
    assert clashes("tcp://*:5555", "10.0.0.1:5555") == [("s1", "s0")]
    assert clashes("[::]:1", "127.0.0.1:1") == [("s1", "s0")]
    assert clashes("localhost:1", "127.0.0.1:1", "127.0.0.1:2") == [("s1", "s0")]
    assert clashes("127.0.0.1:1", "127.0.0.2:1") == []
    assert clashes("127.0.0.1:0", "127.0.0.1:0", "nonsense", "unix:/run/a") == []


def test_all_faults_of_a_key_folder_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "keys"
    shutil.copytree(folder, own)
    assert key_faults(own, "controller", cells=["cell-1", "cell-2"]) == []
    assert key_faults(own, "gnb-mock", cell_id="cell-1") == []
    (own / "controller.key").chmod(0o644)
    (own / "curve" / "controller.key").write_bytes(b"no key")
    (own / "curve" / "cells" / "cell-2.pub").unlink()
    curve, cell, mode = key_faults(own, "controller", cells=["cell-1", "cell-2"])
    assert "controller.key is not a CURVE key" in curve
    assert "cell-2.pub is missing (`prbandit keys` writes it)" in cell
    assert f"{own / 'controller.key'} can be read by everybody on this host: chmod o=" in mode
    (own / "curve" / "cells" / "cell-1.key").chmod(0o604)
    (mode,) = key_faults(own, "", cell_id="cell-1")
    assert "cell-1.key can be read by everybody" in mode
    (missing,) = key_faults(tmp_path / "nowhere", "controller", cells=["cell-1"])
    assert missing.startswith("there is no folder") and missing.endswith("writes one)")
    (home,) = key_faults("~/nowhere", "controller")
    assert home == f"there is no folder ~/nowhere: ~ is the shell's, write {Path('~/nowhere').expanduser()}"


def test_grpc_beyond_loopback_without_tls_is_refused_on_both_sides() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(InsecureAddress, match=r"links\.qos\.address.*security\.keys"):
        grpc_server_add(server, "0.0.0.0:0", None, setting="links.qos.address", missing="security.keys")
    with pytest.raises(InsecureAddress, match="tls"):
        grpc_channel("edge.lab:50061", None)


def test_an_address_that_is_taken_is_an_error_that_names_it() -> None:
    first = grpc.server(futures.ThreadPoolExecutor(1), options=SERVER_OPTIONS)
    port = grpc_server_add(first, "127.0.0.1:0", None)
    first.start()
    try:
        second = grpc.server(futures.ThreadPoolExecutor(1), options=SERVER_OPTIONS)
        with pytest.raises(OSError, match=rf"links\.qos\.address.*127\.0\.0\.1:{port}"):
            grpc_server_add(second, f"127.0.0.1:{port}", None, setting="links.qos.address")
    finally:
        first.stop(0)


class _Edge(edge_pb2_grpc.EdgeServicer):
    def Hello(self, request: edge_pb2.EdgeHello, context: grpc.ServicerContext) -> edge_pb2.EdgeWelcome:
        return edge_pb2.EdgeWelcome(protocol_version=PROTOCOL_VERSION)


@pytest.fixture(scope="module")
def tls_port(folder: Path) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2), options=SERVER_OPTIONS)
    edge_pb2_grpc.add_EdgeServicer_to_server(_Edge(), server)
    port = grpc_server_add(server, "127.0.0.1:0", Tls(folder, "edge-agent"))
    server.start()
    yield port
    server.stop(0)


def _hello(channel: grpc.Channel) -> edge_pb2.EdgeWelcome:
    with channel:
        stub = edge_pb2_grpc.EdgeStub(channel)
        return stub.Hello(edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION), timeout=10)


def test_mutual_tls_works_with_the_keys_that_were_written(folder: Path, tls_port: int) -> None:
    welcome = _hello(
        grpc_channel(f"localhost:{tls_port}", Tls(folder, "controller"), server_role="edge-agent")
    )
    assert welcome.protocol_version == PROTOCOL_VERSION


def test_a_handshake_over_a_slow_radio_takes_one_attempt(folder: Path, tls_port: int) -> None:
    """Each way takes 0.3 s, as a loaded uplink may; gRPC gave up an attempt after its shortest backoff."""
    listener = socket.create_server(("127.0.0.1", 0))
    attempts = []

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(0.3)
                sink.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", tls_port))
                attempts.append((client, server))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        tls = Tls(folder, "controller")
        address = f"localhost:{listener.getsockname()[1]}"
        welcome = _hello(grpc_channel(address, tls, server_role="edge-agent"))
    finally:
        listener.close()
        for end in (end for pair in attempts for end in pair):
            end.close()
    assert welcome.protocol_version == PROTOCOL_VERSION and len(attempts) == 1


def test_plaintext_is_refused_by_a_tls_server(tls_port: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _hello(grpc_channel(f"localhost:{tls_port}", None))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_client_without_a_certificate_is_refused(folder: Path, tls_port: int) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=(folder / "ca.crt").read_bytes())
    with pytest.raises(grpc.RpcError) as caught:
        _hello(grpc.secure_channel(f"localhost:{tls_port}", credentials))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_client_of_another_authority_is_refused(tls_port: int, tmp_path: Path) -> None:
    keys.create(tmp_path, cells=[], days=2)
    with pytest.raises(grpc.RpcError) as caught:
        _hello(grpc_channel(f"localhost:{tls_port}", Tls(tmp_path, "controller"), server_role="edge-agent"))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["ca.crt", "gnb-mock.crt", "gnb-mock.key"])
def test_a_missing_tls_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for there in ("ca.crt", "gnb-mock.crt", "gnb-mock.key"):
        if there != name:
            (tmp_path / there).write_bytes((folder / there).read_bytes())
    with pytest.raises(KeyFileError, match=name) as caught:
        grpc_channel("localhost:1", Tls(tmp_path, "gnb-mock"))
    assert "missing" in str(caught.value)


def test_a_file_that_is_no_certificate_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("ca.crt", "gnb-mock.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "gnb-mock.crt").write_text("not a certificate")
    with pytest.raises(KeyFileError, match=r"gnb-mock\.crt is not PEM"):
        grpc_channel("localhost:1", Tls(tmp_path, "gnb-mock"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("ca.crt", b"rubbish", r"key file .*ca\.crt is not a certificate: (?!None)"),
        ("gnb-mock.crt", b"rubbish", r"key file .*gnb-mock\.crt is not a certificate"),
        ("gnb-mock.key", b"rubbish", r"gnb-mock\.crt and .*gnb-mock\.key are not a certificate and its key"),
        ("gnb-mock.key", b"encrypted", r"key file .*gnb-mock\.key is encrypted"),
        ("gnb-mock.key", None, r"gnb-mock\.crt and .*gnb-mock\.key are not a certificate and its key"),
    ],
)
def test_a_key_file_that_does_not_fit_is_named(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    for file in ("ca.crt", "gnb-mock.crt", "gnb-mock.key"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    kind = b"CERTIFICATE" if name.endswith(".crt") else b"PRIVATE KEY"
    if content == b"encrypted":
        kind = b"ENCRYPTED PRIVATE KEY"
    rubbish = b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (kind, content or b"", kind)
    (tmp_path / name).write_bytes(rubbish if content else (folder / "operator.key").read_bytes())
    server = grpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(KeyFileError, match=told):
        grpc_server_add(server, "127.0.0.1:0", Tls(tmp_path, "gnb-mock"))
    with pytest.raises(KeyFileError, match=told):
        grpc_channel("localhost:1", Tls(tmp_path, "gnb-mock"))


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "dns:///localhost", "localhost:https"])
def test_an_address_without_a_port_is_refused_on_both_sides(address: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(ValueError, match=rf"--qos: address '{address}' is not HOST:PORT"):
        grpc_server_add(server, address, None, setting="--qos")
    with pytest.raises(ValueError, match=rf"--qos: address '{address}' is not HOST:PORT"):
        grpc_channel(address, None, setting="--qos")


@pytest.mark.parametrize("address", ["dns:///localhost:1", "ipv6:[::1]:1", "[::1]:1", "unix:/run/a.sock"])
def test_every_kind_of_grpc_address_is_taken(address: str) -> None:
    grpc_channel(address, None).close()


def test_curve_keys_are_paired_and_each_belongs_to_one_cell(folder: Path) -> None:
    server = curve_server(folder)
    one, two = curve_client(folder, "cell-1"), curve_client(folder, "cell-2")
    assert one.server == two.server == server.public
    assert server.clients == {one.public: "cell-1", two.public: "cell-2"}
    assert one.secret.decode() not in repr(one)
    assert server.secret.decode() not in repr(server)


def test_missing_and_broken_curve_keys_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"curve/cells/cell-9\.key is missing"):
        curve_client(folder, "cell-9")
    with pytest.raises(KeyFileError, match=r"curve/controller\.key is missing"):
        curve_server(tmp_path)
    with pytest.raises(KeyFileError, match="cannot name a key"):
        curve_client(folder, "../controller")
    keys.create(tmp_path, cells=["a"], days=1)
    public = tmp_path / "curve" / "cells" / "a.pub"
    (public.parent / "b.pub").write_bytes(public.read_bytes())
    with pytest.raises(KeyFileError, match=r"b\.pub holds the key of cell a"):
        curve_server(tmp_path)
    public.write_text("too short")
    with pytest.raises(KeyFileError, match=r"a\.pub is not a CURVE key"):
        curve_server(tmp_path)
