"""The key folder: every file that this host's processes need, and how long the certificates hold."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from controller.cli.doctor.findings import Finding, fail, ok, skipped, warning
from controller.cli.doctor.host import CERTIFICATES, Host
from wire.definitions.extras import MissingExtra, needs
from wire.revocation import Revoked
from wire.roles import OPERATOR
from wire.security import KeyFileError, Tls, curve_file, key_faults, read_key_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SOON = timedelta(days=30)


def check(host: Host) -> Iterator[Finding]:
    if host.keys is None:
        if host.unread:
            yield skipped("keys", "no configuration")
        elif host.one_host:
            yield skipped("keys", "none configured: every address is of loopback")
        else:
            yield fail(
                "keys", "addresses beyond loopback and no keys", "set security.keys, or give --keys DIR"
            )
        return
    faults = list(dict.fromkeys(fault for role in host.roles for fault in _faults(host, host.keys, role)))
    for fault in faults:
        yield fail("keys", fault, _remedy(host.keys, fault))
    if not faults:
        need = "needs" if len(host.roles) == 1 else "need"
        yield ok("keys", f"{host.keys} has every file that {' and '.join(host.roles)} {need}")
    yield from _group_readable(host.keys)
    yield from _curve(host, host.keys)
    yield from _certificates(host, host.keys)


def _faults(host: Host, keys: Path, role: str) -> list[str]:
    cells = [cell.id for cell in host.config.cells] if role == "controller" and host.config else []
    cell = host.cell or (host.config.cells[0].id if host.config else None) if role == "gnb" else None
    return key_faults(keys, CERTIFICATES[role], cell_id=cell, cells=cells)


def _remedy(keys: Path, fault: str) -> str:
    """A command; the texts of :func:`key_faults` name theirs where there is one."""
    if "chmod" in fault:
        return fault.partition(": ")[2]
    if "cannot be read" in fault:
        return "run this as the user of the daemon; `chown` the file to it"
    if "missing" in fault or "no folder" in fault:
        return f"`prbandit keys {keys} --cell CELL --host HOST` where ca.key is, then copy the file here"
    return "copy the file again from where the keys were made, or make its pair anew there"


def _group_readable(keys: Path) -> Iterator[Finding]:
    for path in sorted(keys.rglob("*.key")):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if mode & (stat.S_IRGRP | stat.S_IWGRP):
            yield warning("keys", f"key file {path} can be read by its group", f"chmod g= {path}")


def _curve(host: Host, keys: Path) -> Iterator[Finding]:
    """Pairs that do not match, and who may connect."""
    cells = sorted((keys / "curve" / "cells").glob("*.pub"))
    for cell in (None, *(path.stem for path in cells)):
        private, public = curve_file(keys, cell, "key"), curve_file(keys, cell, "pub")
        if not (private.exists() and public.exists()):
            continue
        try:
            derived = zmq.curve_public(read_key_file(private).strip())
            same = derived == read_key_file(public).strip()
        except (KeyFileError, zmq.ZMQError, ValueError):
            continue  # that has been told
        if not same:
            again = f"remove both, `prbandit keys {keys} --cell CELL`, and copy the new .pub to the peers"
            yield fail("keys", f"key file {public} is not the public key of {private}", again)
    if "controller" in host.roles and cells and host.config:
        known = {cell.id for cell in host.config.cells}
        stray = [path for path in cells if path.stem not in known]
        yield ok(
            "keys", f"cells that may connect: {', '.join(p.stem for p in cells if p not in stray) or 'none'}"
        )
        for path in stray:
            yield warning("keys", f"{path}: cell {path.stem} is not in the configuration", f"rm {path}")


def _certificates(host: Host, keys: Path) -> Iterator[Finding]:
    names = [CERTIFICATES[role] for role in host.roles if CERTIFICATES[role]]
    if "controller" in host.roles and (keys / f"{OPERATOR}.crt").exists():
        names.append(OPERATOR)
    if not names:
        return
    try:
        with needs("keys", "the expiry of a certificate"):
            from cryptography import x509
    except MissingExtra as error:
        yield skipped("certificates", str(error))
        return

    def read(path: Path) -> Certificate | None:
        try:
            return x509.load_pem_x509_certificate(read_key_file(path))
        except (KeyFileError, ValueError):
            return None  # that has been told

    now = datetime.now(UTC)
    authority = read(keys / "ca.crt")
    if authority is not None:
        yield _validity(
            "the authority", keys / "ca.crt", authority, now, f"a new folder: `prbandit keys {keys}.new`"
        )
    try:
        revoked = Revoked(keys)
    except KeyFileError as error:
        yield fail("certificates", str(error), f"mend that line of {keys / 'revoked'}")
        revoked = None
    for name in names:
        path = Tls(keys, name).certificate_file
        certificate = read(path)
        if certificate is None:
            continue
        renew = (
            f"where ca.key is: remove {path.name} and {path.stem}.key there,"
            " `prbandit keys DIR --cell CELL --host HOST`, and copy the two new files here"
        )
        if revoked is not None and read_key_file(path) in revoked:
            yield fail("certificates", f"{path} is revoked: it is on the list {keys / 'revoked'}", renew)
            continue
        yield _validity(name, path, certificate, now, renew)
        if authority is not None and not _signed(certificate, authority):
            text = f"{path} was not signed by {keys / 'ca.crt'}"
            yield fail(
                "certificates", text, f"copy {path.name}, its .key and ca.crt from one and the same folder"
            )


def _validity(name: str, path: Path, certificate: Certificate, now: datetime, renew: str) -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return fail(
            "certificates", f"{path} holds from {begin:%Y-%m-%d %H:%M} UTC only", "set this host's clock"
        )
    if now > end:
        return fail("certificates", f"{path} has expired on {end:%Y-%m-%d}", renew)
    text = f"{name}: {path.name} holds until {end:%Y-%m-%d}, {(end - now).days} days"
    return warning("certificates", text, renew) if end - now < SOON else ok("certificates", text)


def _signed(certificate: Certificate, authority: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
