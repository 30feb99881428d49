"""Certificates that are signed and not expired, and yet let nobody in any more.

gRPC takes no list of revoked certificates, so that our servers ask for each call. The list is a file of the
key folder, ``revoked``: the SHA-256 fingerprint of a certificate (DER, 64 hexadecimal digits) at the start of
a line, then whatever one wants to say of it. ``prbandit keys FOLDER --revoke NAME`` adds to it.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wire.security import KeyFileError

log = logging.getLogger(__name__)

FILE = "revoked"
LOOK_S = 1.0
"""A change of the file counts within so many seconds."""
MAX_BYTES = 1 << 20
"""Of the file: calls wait while it is read."""


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate, PEM or DER; ValueError for what is none."""
    pem = certificate.lstrip().startswith(b"-----BEGIN")
    der = ssl.PEM_cert_to_DER_cert(certificate.decode("ascii")) if pem else certificate
    if der[:1] != b"\x30":  # a SEQUENCE
        raise ValueError("no certificate")
    return hashlib.sha256(der).hexdigest()


def read(folder: Path) -> frozenset[str]:
    """The fingerprints of a key folder's list; none without a file. KeyFileError, with file and line, for a
    list that cannot be read."""
    path = Path(folder) / FILE
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise KeyFileError(f"key file {path} is no regular file")
        if about.st_size > MAX_BYTES:
            raise KeyFileError(f"key file {path}: {about.st_size} bytes, more than {MAX_BYTES}")
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"key file {path} cannot be read: {error}") from error
    found = set()
    for number, line in enumerate(lines, 1):
        if not (words := line.split()) or words[0].startswith("#"):
            continue
        digits = words[0].lower().replace(":", "")
        if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            raise KeyFileError(
                f"key file {path}:{number}: {words[0]!r} is no SHA-256 fingerprint (64 hex digits)"
            )
        found.add(digits)
    return frozenset(found)


class Revoked:
    """The list of one key folder as it is now; any thread may ask.

    KeyFileError where it cannot be read at the start. Where it becomes unreadable later, or is gone, what was
    last known counts, and the log says so: an empty list lets everybody in again.
    """

    def __init__(self, folder: Path | str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = Path(folder), clock
        self._lock = threading.Lock()
        self._look_at = clock() + LOOK_S
        self._stamp = self._stamped()
        self._known = read(self._folder)
        self._broken = ""

    def __contains__(self, certificate: bytes) -> bool:
        """Whether a certificate, PEM or DER, is revoked; one that cannot be told is."""
        now = self._clock()
        with self._lock:
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._read()
            known = self._known
        if not known:
            return False
        try:
            return fingerprint(certificate) in known
        except ValueError:
            return True

    def _stamped(self) -> tuple[int, ...] | None:
        """What differs once the file has changed; None where that cannot be told."""
        try:
            about = (self._folder / FILE).stat()
        except OSError:
            return None
        return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns

    def _read(self) -> None:
        stamp = self._stamped()
        if stamp is not None and stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            known = read(self._folder)
            if self._known and not (self._folder / FILE).exists():
                raise KeyFileError(f"key file {self._folder / FILE} is gone")
            self._known, self._broken = known, ""
        except KeyFileError as error:
            if str(error) != self._broken:
                self._broken = str(error)
                log.error("%s; what was revoked before stays so", error)
