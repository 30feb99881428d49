"""Who may speak over which address: the loopback rule, CURVE for ZMQ, mutual TLS for gRPC.

A loopback address needs nothing. Any other address needs CURVE (ZMQ) or TLS (gRPC); without it
:class:`InsecureAddress` says which setting is missing. The keys are files in one folder, written by
:func:`wire.keys.create`::

    ca.crt, ca.key                        the authority that signs the certificates below
    ROLE.crt, ROLE.key                    a certificate of each of :data:`wire.roles.ROLES`
    curve/controller.pub, .key            the controller's CURVE pair, Z85 text
    curve/cells/CELL.pub, .key            the CURVE pair of each cell's agent

A process needs its own private files and the public files of its peers only.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import grpc
import zmq
from zmq.utils import z85

from wire.roles import CONTROLLER

CELL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}\Z")
"""Cell ids that can name a key file; 63 bytes is the bound of wire/ran.options."""

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two servers that share a port share its calls: a second daemon has to fail instead.
    ("grpc.so_reuseport", 0),
    # A connection that does not get as far as TLS goes.
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 1 << 20),
)
"""Options for ``grpc.server(options=...)``: a dead peer is noticed within eight seconds."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    ("grpc.initial_reconnect_backoff_ms", 200),
    # How long one attempt may take: a handshake over a loaded uplink is several slow round trips.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The testbed's hosts are never behind the proxy that a host's environment may name.
    ("grpc.enable_http_proxy", 0),
)
"""Options of the channels that :func:`grpc_channel` opens."""


class InsecureAddress(ValueError):
    """An address beyond loopback without CURVE or TLS."""


class KeyFileError(ValueError):
    """A key file is missing, unreadable or not a key; the message names the file."""


# ---- addresses ------------------------------------------------------------------------------------------

Address = tuple[str, int]
"""Host, without the brackets of a v6 address, and port."""


def parse_address(text: str) -> Address:
    """``host:port`` or ``[v6]:port``; ValueError for anything else, saying why it is none."""
    host, colon, port = text.rpartition(":")
    if colon and host in ("", "*"):
        raise ValueError(f"address {text!r} is not HOST:PORT; 0.0.0.0 is every address of this host")
    portless = not colon or (text.startswith("[") and text.endswith("]"))
    if why := "a port is missing" if portless else _no_host(host) or _no_port(port):
        raise ValueError(f"address {text!r} is not HOST:PORT: {why}")
    return host.strip("[]"), int(port)


def _no_host(host: str) -> str:
    """Why a host cannot be one; "" where it can."""
    if "/" in host:
        return f"no {host.partition('/')[0]}// belongs before it" if "://" in host else "a host has no /"
    if host.startswith("[") or ":" in host:
        inner = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
        try:
            ipaddress.IPv6Address(inner)
        except ValueError:
            return "an IPv6 address stands in brackets, as in [::1]:5555"
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return f"{host} is no IPv4 address"
    elif not re.fullmatch(r"\w(?:[\w.-]*\w)?\.?", host):
        return f"{host!r} is no name of a host"
    return ""


def _no_port(port: str) -> str:
    if not (port.isascii() and port.isdecimal()):
        return f"{port!r} is no port" if port else "a port is missing"
    return "" if int(port) < 65_536 else "a port is 65535 at most"


# ---- the loopback rule ----------------------------------------------------------------------------------


def is_loopback(address: str) -> bool:
    """Tells whether ``address`` can only be reached from this host.

    Takes ZMQ endpoints (``tcp://127.0.0.1:5555``, ``ipc://``, ``inproc://``), gRPC targets
    (``localhost:50051``, ``[::1]:1``, ``unix:...``, ``dns:///...``), ``http://`` URLs and bare hosts.
    Wildcards and all host names but ``localhost`` are not loopback, nor is what cannot be understood.
    """
    scheme, separator, rest = address.partition("://")
    if separator:
        if scheme in ("ipc", "inproc", "unix"):
            return True
        # ZMQ: "tcp://source;destination"; dns: "dns://authority/host:port".
        if scheme == "tcp":
            rest = rest.rpartition(";")[2]
        elif scheme == "dns":
            rest = rest.rpartition("/")[2]
        else:
            rest = rest.partition("/")[0]
    else:
        rest = address
        if rest.startswith(("unix:", "unix-abstract:")):
            return True
        for prefix in ("dns:", "ipv4:", "ipv6:"):
            rest = rest.removeprefix(prefix)
    return _host_is_loopback(_host_of(rest))


def _host_of(endpoint: str) -> str:
    """The host of ``host:port``, ``[v6]:port``, a bare v6 address or a bare host."""
    if endpoint.startswith("["):
        host, _, port = endpoint[1:].partition("]")
        return host if not port or port.startswith(":") else ""
    if endpoint.count(":") > 1:
        return endpoint
    return endpoint.partition(":")[0]


def _host_is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return ip.is_loopback or (mapped is not None and mapped.is_loopback)


Kind = Literal["zmq", "grpc", "tcp"]
"""How an address is written: ``tcp://HOST:PORT``; ``HOST:PORT`` and what else gRPC has; ``HOST:PORT``."""


def address_parts(address: str, kind: Kind) -> Address | None:
    """Host and port of an address; None for a Unix socket. ``*`` is 0.0.0.0, and as ZMQ's port 0.

    ValueError, saying why, for what is no address of this kind.
    """
    if kind == "zmq":
        scheme, separator, rest = address.partition("://")
        host, _, port = rest.rpartition(":")
        if scheme != "tcp" or not separator:
            raise ValueError(f"address {address!r} is not tcp://HOST:PORT")
        rest = f"{'0.0.0.0' if host == '*' else host}:{'0' if port == '*' else port}"
    elif kind == "grpc" and address.startswith(("unix:", "unix-abstract:")):
        return None
    else:
        rest = re.sub(r"^(dns|ipv4|ipv6):(//[^/]*/)?", "", address) if kind == "grpc" else address
    try:
        return parse_address(rest)
    except ValueError as error:
        wanted = "tcp://HOST:PORT" if kind == "zmq" else "HOST:PORT"
        why = str(error).partition("is not HOST:PORT")[2]
        raise ValueError(f"address {address!r} is not {wanted}{why}") from None


def address_fault(
    address: str, kind: Kind, *, secured: bool, missing: str, listens: bool = False
) -> ValueError | None:
    """What is wrong with an address that is to be listened on, or connected to; None where nothing is.

    The one place that says so: the check of a configuration and every server and client ask here. It is an
    :class:`InsecureAddress` beyond loopback where it is not ``secured`` by the setting named ``missing``.
    """
    try:
        parts = address_parts(address, kind)
    except ValueError as error:
        return error
    if parts is not None and parts[1] == 0 and not listens:
        return ValueError(f"address {address!r}: nothing can be reached at port 0")
    if not secured and not is_loopback(address):
        return InsecureAddress(
            f"{address} is not a loopback address and {missing} is not set (`prbandit keys` writes the keys)"
        )
    return None


def require_address(
    setting: str, address: str, kind: Kind, *, secured: bool, missing: str, listens: bool = False
) -> None:
    """Raises what :func:`address_fault` finds, ``setting`` named before it."""
    if (fault := address_fault(address, kind, secured=secured, missing=missing, listens=listens)) is not None:
        raise type(fault)(f"{setting}: {fault}")


def shared_ports(addresses: Mapping[str, tuple[str, Kind]]) -> dict[str, str]:
    """Of servers of one host, by setting, those that cannot listen beside another: setting -> the other's.

    Addresses that are none are left out, and so are ports that the system chooses.
    """
    taken: dict[int, list[tuple[str, str]]] = {}
    clashes: dict[str, str] = {}
    for setting, (address, kind) in addresses.items():
        try:
            parts = address_parts(address, kind)
        except ValueError:
            continue
        if parts is None or parts[1] == 0:
            continue
        host, port = parts
        other = next((name for name, at in taken.get(port, []) if _same_host(host, at)), None)
        if other is not None:
            clashes[setting] = other
        taken.setdefault(port, []).append((setting, host))
    return clashes


def _same_host(one: str, other: str) -> bool:
    """Whether a socket on the one address keeps another from the other; any name of loopback is all of it."""
    if one.lower() == other.lower() or {one, other} & {"0.0.0.0", "::"}:
        return True
    return "localhost" in (one.lower(), other.lower()) and _host_is_loopback(one) and _host_is_loopback(other)


# ---- key files ------------------------------------------------------------------------------------------


def read_key_file(path: Path) -> bytes:
    """The content of a key file.

    Raises:
        KeyFileError: names the file that is missing, unreadable or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise KeyFileError(f"key file {path} is missing (`prbandit keys` writes it)") from None
    except OSError as error:
        raise KeyFileError(f"key file {path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise KeyFileError(f"key file {path} is empty")
    return data


@dataclass(frozen=True, slots=True)
class Tls:
    """The key folder and the role whose certificate a process shows."""

    folder: Path
    name: str

    @property
    def ca_file(self) -> Path:
        return Path(self.folder) / "ca.crt"

    @property
    def certificate_file(self) -> Path:
        return Path(self.folder) / f"{self.name}.crt"

    @property
    def key_file(self) -> Path:
        return Path(self.folder) / f"{self.name}.key"

    def read(self) -> tuple[bytes, bytes, bytes]:
        """PEM of the authority, of the certificate and of its private key.

        Raises:
            KeyFileError: names the file that is missing, unreadable or none of these, or the two that are not
                a pair.
        """
        parts = tuple(read_key_file(p) for p in (self.ca_file, self.certificate_file, self.key_file))
        for path, pem in zip((self.ca_file, self.certificate_file, self.key_file), parts, strict=True):
            if b"-----BEGIN " not in pem:
                raise KeyFileError(f"key file {path} is not PEM")
        if b"ENCRYPTED" in parts[2]:
            # A daemon has nobody to ask for the passphrase.
            raise KeyFileError(f"key file {self.key_file} is encrypted")
        self._check()
        return parts[0], parts[1], parts[2]

    def _check(self) -> None:
        # gRPC would only say that it cannot listen, or that the other side is not available.
        for path in (self.ca_file, self.certificate_file):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except ssl.SSLError as error:
                raise KeyFileError(
                    f"key file {path} is not a certificate: {error.reason or error}"
                ) from error
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate_file, self.key_file)
        except ssl.SSLError as error:
            what = f"key files {self.certificate_file} and {self.key_file} are not a certificate and its key"
            raise KeyFileError(f"{what}: {error.reason or error}") from error


def server_credentials(folder: Path | str, name: str) -> grpc.ServerCredentials:
    """Mutual TLS of a gRPC server: only clients whose certificate ``ca.crt`` signed may call."""
    ca, certificate, key = Tls(Path(folder), name).read()
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)


def channel_credentials(folder: Path | str, name: str) -> grpc.ChannelCredentials:
    """Mutual TLS of a gRPC client."""
    ca, certificate, key = Tls(Path(folder), name).read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def grpc_server_add(
    server: grpc.Server,
    address: str,
    tls: Tls | None,
    *,
    setting: str = "address",
    missing: str = "tls",
) -> int:
    """Lets ``server`` listen on ``address`` and returns the port (of use where the address says 0).

    Raises:
        InsecureAddress: beyond loopback without TLS; names ``setting`` and ``missing``.
        ValueError: the address has no port, for which gRPC would take 443.
        KeyFileError: names the key file.
        OSError: the address cannot be bound.
    """
    require_address(setting, address, "grpc", secured=tls is not None, missing=missing, listens=True)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(tls.folder, tls.name))
    except RuntimeError as error:
        raise OSError(f"{setting}: cannot listen on {address}: {error}") from error
    if port == 0:
        raise OSError(f"{setting}: cannot listen on {address}")
    return int(port)


def server_role_options(role: str) -> tuple[tuple[str, str], ...]:
    """Options of a TLS channel to a server whose certificate must be of ``role``.

    A certificate names its role among its hosts, and no other role's does: gRPC's check of the name is one of
    the role.
    """
    return (("grpc.ssl_target_name_override", role),)


def grpc_channel(
    address: str,
    tls: Tls | None,
    *,
    server_role: str = "",
    setting: str = "address",
    missing: str = "tls",
) -> grpc.Channel:
    """A channel to ``address``, under the loopback rule. It connects with its first call.

    With ``tls`` the server has to show a certificate of ``server_role``; else calls are UNAVAILABLE.

    Raises:
        InsecureAddress, ValueError, KeyFileError: as in :func:`grpc_server_add`; ValueError also with ``tls``
            and no ``server_role``.
    """
    require_address(setting, address, "grpc", secured=tls is not None, missing=missing)
    if tls is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    credentials = channel_credentials(tls.folder, tls.name)
    if not server_role:
        raise ValueError(f"{setting}: the role of the server at {address} is not named")
    options = (*CHANNEL_OPTIONS, *server_role_options(server_role))
    return grpc.secure_channel(address, credentials, options=options)


# ---- CURVE ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CurveServer:
    """The controller's side of CURVE. Keys are Z85 text, 40 bytes; ``clients``: public key -> cell id."""

    public: bytes
    secret: bytes = field(repr=False)
    clients: Mapping[bytes, str] = field(default_factory=dict)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Makes ``socket`` a CURVE server; call before bind."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.curve_server = True


@dataclass(frozen=True, slots=True)
class CurveClient:
    """An agent's side of CURVE. Keys are Z85 text, 40 bytes."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Makes ``socket`` a CURVE client of the controller; call before connect."""
        socket.curve_serverkey = self.server
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret


def curve_file(folder: Path | str, cell_id: str | None, suffix: str) -> Path:
    """Path of a CURVE key: the controller's where ``cell_id`` is None; ``suffix`` is ``pub`` or ``key``."""
    curve = Path(folder) / "curve"
    if cell_id is None:
        return curve / f"{CONTROLLER}.{suffix}"
    if not CELL_NAME.match(cell_id):
        raise KeyFileError(
            f"cell id {cell_id!r} cannot name a key: letters, digits and ._:- only, 63 at most"
        )
    return curve / "cells" / f"{cell_id}.{suffix}"


def _z85(path: Path) -> bytes:
    text = read_key_file(path).strip()
    try:
        if len(text) != 40:
            raise ValueError
        z85.decode(text)
    except (ValueError, KeyError):
        raise KeyFileError(f"key file {path} is not a CURVE key (40 characters of Z85)") from None
    return text


def _pair(folder: Path | str, cell_id: str | None) -> tuple[bytes, bytes]:
    path = curve_file(folder, cell_id, "key")
    secret = _z85(path)
    return zmq.curve_public(secret), secret


def curve_server(folder: Path | str, *, or_none: bool = False) -> CurveServer:
    """The controller's secret key and the public keys of every cell that may connect; ``or_none``: there
    need not be any.

    Raises:
        KeyFileError: names the file that is missing or no key, or the two cells with one key.
    """
    public, secret = _pair(folder, None)
    cells = Path(folder) / "curve" / "cells"
    clients: dict[bytes, str] = {}
    for path in sorted(cells.glob("*.pub")):
        key = _z85(path)
        if key in clients:
            raise KeyFileError(f"key file {path} holds the key of cell {clients[key]}: a key is one cell's")
        clients[key] = path.stem
    if not (clients or or_none):
        raise KeyFileError(f"no cell's public key in {cells} (`prbandit keys` writes them)")
    return CurveServer(public, secret, clients)


def curve_client(folder: Path | str, cell_id: str) -> CurveClient:
    """The keys with which the agent of ``cell_id`` connects.

    Raises:
        KeyFileError: names the file that is missing or no key.
    """
    public, secret = _pair(folder, cell_id)
    return CurveClient(_z85(curve_file(folder, None, "pub")), public, secret)


# ---- everything of a folder -----------------------------------------------------------------------------


def key_faults(
    folder: Path | str, role: str, *, cell_id: str | None = None, cells: Sequence[str] = ()
) -> list[str]:
    """All that keeps a process from using a key folder, in the words of the errors above; nothing: [].

    ``role`` is that of its certificate ("": it needs none), ``cell_id`` the cell as whose agent it connects
    over CURVE; ``cells`` are those that a controller is to serve over it. A private key that everybody on the
    host can read is a fault.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if str(folder).startswith("~"):
            return [f"there is no folder {folder}: ~ is the shell's, write {folder.expanduser()}"]
        return [f"there is no folder {folder} (`prbandit keys {folder}` writes one)"]
    reads: list[Callable[[], object]] = []
    private: list[Path] = []
    if role:
        tls = Tls(folder, role)
        reads.append(tls.read)
        private.append(tls.key_file)
    if cells:
        reads.append(partial(curve_server, folder))
        reads += [partial(_cell_public, folder, cell) for cell in cells]
        private.append(curve_file(folder, None, "key"))
    if cell_id is not None:
        reads.append(partial(curve_client, folder, cell_id))
        if CELL_NAME.match(cell_id):
            private.append(curve_file(folder, cell_id, "key"))
    faults = []
    for read in (*reads, *(partial(_require_private, path) for path in private)):
        try:
            read()
        except KeyFileError as error:
            faults.append(str(error))
    return list(dict.fromkeys(faults))


def _cell_public(folder: Path, cell_id: str) -> bytes:
    return _z85(curve_file(folder, cell_id, "pub"))


def _require_private(path: Path) -> None:
    with suppress(OSError):  # one that is not there has been told of
        if path.stat().st_mode & stat.S_IROTH:
            raise KeyFileError(f"key file {path} can be read by everybody on this host: chmod o= {path}")
