"""Certificates that are revoked: the list, and who changes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wire import keys, revocation
from wire.revocation import LOOK_S, Revoked, fingerprint, read
from wire.security import KeyFileError, Tls

pytest.importorskip("cryptography", reason="certificates need the extra 'keys'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.create(tmp_path, cells=["cell-1"], agents=["ptp-agent@edge-1"], days=2)
    return tmp_path


def pem(folder: Path, name: str) -> bytes:
    return Tls(folder, name).certificate_file.read_bytes()


def test_what_is_revoked_counts_within_a_second_and_new_ones_are_made(folder: Path) -> None:
    now = [0.0]
    revoked = Revoked(folder, clock=lambda: now[0])
    old, other = pem(folder, "operator"), pem(folder, "observer")
    changed = keys.revoke(folder, "operator")
    assert [p.name for p in changed] == ["revoked", "operator.crt.revoked-1", "operator.key.revoked-1"]
    assert old not in revoked
    now[0] += LOOK_S
    assert old in revoked and other not in revoked and b"garbage" in revoked
    written = keys.create(folder, cells=["cell-1"], agents=["ptp-agent@edge-1"])
    assert {p.name for p in written} == {"operator.crt", "operator.key"}
    assert pem(folder, "operator") not in revoked
    keys.revoke(folder, "ptp-agent@edge-1")
    assert len(read(folder)) == 2


def test_a_cells_key_is_taken_away(folder: Path) -> None:
    changed = keys.revoke(folder, "cell-1")
    assert [p.name for p in changed] == ["cell-1.pub.revoked-1", "cell-1.key.revoked-1"]
    assert keys.create(folder, cells=["cell-1"], agents=["ptp-agent@edge-1"])
    keys.revoke(folder, "cell-1")
    assert (folder / "curve" / "cells" / "cell-1.pub.revoked-2").exists()


@pytest.mark.parametrize("name", ["nobody", "operator@edge-9", "../operator", ""])
def test_there_must_be_something_to_revoke(folder: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="to revoke"):
        keys.revoke(folder, name)


def test_a_list_that_cannot_be_read_is_refused_and_later_keeps_what_was_known(folder: Path) -> None:
    now = [0.0]
    digits = fingerprint(pem(folder, "operator")).upper()
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2))
    (folder / "revoked").write_text(f"# who and why\n\n{colons} lost laptop\n")
    revoked = Revoked(folder, clock=lambda: now[0])
    (folder / "revoked").write_text("operator\n")
    now[0] += LOOK_S
    assert pem(folder, "operator") in revoked
    with pytest.raises(KeyFileError, match="revoked:1: 'operator' is no SHA-256 fingerprint"):
        Revoked(folder)


def test_a_list_that_would_hold_up_calls_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    keys.revoke(folder, "operator")
    old = Tls(folder, "operator").certificate_file.with_name("operator.crt.revoked-1").read_bytes()
    revoked = Revoked(folder, clock=lambda: now[0])
    file = folder / "revoked"
    listed = file.read_text()

    def becomes(make: Callable[[], object], why: str) -> None:
        file.unlink()
        make()
        now[0] += LOOK_S
        assert old in revoked
        with pytest.raises(KeyFileError, match=why):
            read(folder)

    becomes(lambda: os.mkfifo(file), "no regular file")
    becomes(lambda: file.write_text(f"{'0' * 64}\n" * 20_000), "bytes, more than")
    becomes(file.mkdir, "no regular file")
    file.rmdir()
    file.write_text(listed)
    now[0] += LOOK_S
    assert old in revoked
    # One that has not changed is not read again.
    monkeypatch.setattr(revocation, "read", lambda _: pytest.fail("read again"))
    now[0] += LOOK_S
    assert old in revoked


def test_a_list_that_is_gone_lets_nobody_in_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    old = pem(folder, "operator")
    keys.revoke(folder, "operator")
    revoked = Revoked(folder, clock=lambda: now[0])
    elsewhere = folder.rename(folder.with_name("not-mounted"))
    for _ in range(3):
        now[0] += LOOK_S
        assert old in revoked
    assert [r.getMessage() for r in caplog.records] == [
        f"key file {folder / 'revoked'} is gone; what was revoked before stays so"
    ]
    elsewhere.rename(folder)
    (folder / "revoked").write_text("")
    now[0] += LOOK_S
    assert old not in revoked
