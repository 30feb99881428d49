"""What the service manager hears."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from controller.cli.supervisor import tell_alive


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_hears_that_the_process_is_up_and_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    # The path of a socket has 107 bytes at most, and a test's folder may have more.
    monkeypatch.chdir(tmp_path)
    address = f"@{secrets.token_hex(8)}" if abstract else "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        for _ in range(2):
            tell_alive()
            assert listener.recv(100) == b"READY=1\nWATCHDOG=1"
    # The manager is gone, and that is no trouble of ours.
    tell_alive()


def test_a_manager_that_does_not_read_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        for _ in range(10_000):
            tell_alive()


def test_where_nobody_asked_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_alive()
