"""Writes the key folder that :mod:`wire.security` reads."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from wire.definitions.extras import MissingExtra, needs
from wire.revocation import FILE, fingerprint, read
from wire.roles import ROLES, identity
from wire.security import CELL_NAME, KeyFileError, Tls, curve_file, read_key_file

if TYPE_CHECKING:
    from cryptography import x509


__all__ = ["MissingExtra", "create", "revoke"]


def create(
    folder: Path | str,
    *,
    cells: Sequence[str],
    hosts: Sequence[str] = (),
    agents: Sequence[str] = (),
    days: int = 730,
) -> list[Path]:
    """Writes what is missing in ``folder`` and returns the new files; never touches an existing one.

    A certificate authority, a certificate for each role of :data:`wire.roles.ROLES` and each of ``agents``
    (``ROLE@HOST``: of that role on that host alone), all valid ``days`` days for ``hosts``, localhost and the
    role's own name, and CURVE pairs of the controller and of each of ``cells``. Private files have mode 0600.

    Raises:
        MissingExtra: cryptography is not installed.
        KeyFileError: half of a pair is there, an existing authority cannot sign, or a cell id cannot name
            a file. Nothing has been overwritten then.
        ValueError: ``days`` is not positive, a host is empty or a role's name, which is the role's alone, or
            an agent is not ROLE@HOST.
    """
    if days < 1:
        raise ValueError(f"days: {days} is not a validity in days")
    for host in hosts:
        if not host.strip():
            raise ValueError("hosts: an empty host name")
        if host.strip().rstrip(".").lower() in ROLES:  # as TLS compares names
            raise ValueError(
                f"hosts: {host} is the name of a role, which that role's certificate has already"
            )
    for agent in agents:
        shown = identity(agent)
        if shown.role not in ROLES or not CELL_NAME.match(shown.host):
            raise ValueError(f"agents: {agent!r} is not ROLE@HOST; roles: {', '.join(ROLES)}")
    folder = Path(folder)
    pairs = [(curve_file(folder, cell, "key"), curve_file(folder, cell, "pub")) for cell in (None, *cells)]
    certificates = {name: Tls(folder, name) for name in (*ROLES, *agents)}
    authority = (folder / "ca.key", folder / "ca.crt")
    for private, public in (*pairs, *((t.key_file, t.certificate_file) for t in certificates.values())):
        _whole_or_absent(private, public)
    missing = [name for name, tls in certificates.items() if not tls.key_file.exists()]
    written: list[Path] = []
    if missing:
        # The authority's key may be kept elsewhere for as long as nothing has to be signed.
        _whole_or_absent(*authority)
        written += _certificates(folder, missing, hosts, days)
    for private, public in pairs:
        if private.exists():
            continue
        public_key, secret_key = zmq.curve_keypair()
        written += [_write(private, secret_key + b"\n", private=True), _write(public, public_key + b"\n")]
    return written


def revoke(folder: Path | str, name: str) -> list[Path]:
    """Lets nobody in any more with what the folder has for ``name``; returns the files that were changed.

    ``name`` is a role or ROLE@HOST, whose certificate is put on the list of :mod:`wire.revocation`, or a
    cell, whose CURVE key is taken away. Their files are kept under another name (``.revoked-1``, ...), so
    that :func:`create` writes new ones. The list, or the cell's missing key, has to get to the hosts that
    ask.

    Raises:
        KeyFileError: there is nothing of that name, or a file cannot be read.
    """
    folder = Path(folder)
    read(folder)
    tls = Tls(folder, name)
    if identity(name).role in ROLES and tls.certificate_file.exists():
        digits = fingerprint(read_key_file(tls.certificate_file))
        with (folder / FILE).open("a") as file:
            file.write(f"{digits} {name} {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
        return [folder / FILE, *map(_aside, (tls.certificate_file, tls.key_file))]
    if CELL_NAME.match(name):
        pair = [curve_file(folder, name, suffix) for suffix in ("pub", "key")]
        if present := [path for path in pair if path.exists()]:
            return [_aside(path) for path in present]
    raise KeyFileError(f"{folder}: there is no certificate and no cell {name!r} to revoke")


def _aside(path: Path) -> Path:
    """Renames a file that is there; its new name."""
    n = 1
    while (other := path.with_name(f"{path.name}.revoked-{n}")).exists():
        n += 1
    if path.exists():
        path.rename(other)
    return other


def _whole_or_absent(private: Path, public: Path) -> None:
    for present, absent in ((private, public), (public, private)):
        if present.exists() and not absent.exists():
            raise KeyFileError(
                f"key file {absent} is missing while {present} exists: restore it or remove that"
            )


def _write(path: Path, data: bytes, *, private: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path


def _certificates(folder: Path, names: Sequence[str], hosts: Sequence[str], days: int) -> list[Path]:
    with needs("keys", "a TLS certificate"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=days)

    def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def name(common_name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PRBandit"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )

    def builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
        # An hour of grace: the hosts' clocks need not agree before PTP does its work.
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            encipher_only=False,
            decipher_only=False,
        )

    written: list[Path] = []
    key_path, ca_path = folder / "ca.key", folder / "ca.crt"
    if key_path.exists():
        try:
            ca_key = serialization.load_pem_private_key(read_key_file(key_path), None)
            ca = x509.load_pem_x509_certificate(read_key_file(ca_path))
        except (ValueError, TypeError) as error:
            raise KeyFileError(
                f"{key_path} and {ca_path} are not a certificate authority: {error}"
            ) from error
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
            raise KeyFileError(f"key file {key_path} does not belong to {ca_path}")
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        subject = name("PRBandit testbed authority")
        ca = (
            builder(subject, subject, ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(signs_certificates=True), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        written.append(_write(key_path, private_pem(ca_key), private=True))
        written.append(_write(ca_path, ca.public_bytes(serialization.Encoding.PEM)))

    for role in names:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            builder(name(role), ca.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        _alternative(h)
                        for h in dict.fromkeys((identity(role).role, "localhost", "127.0.0.1", "::1", *hosts))
                    ]
                ),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        tls = Tls(folder, role)
        written.append(_write(tls.key_file, private_pem(key), private=True))
        written.append(_write(tls.certificate_file, certificate.public_bytes(serialization.Encoding.PEM)))
    return written


def _alternative(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
