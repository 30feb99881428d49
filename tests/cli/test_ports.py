"""Ports for processes that are about to be started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.cli import ports


def test_free_ports_differ_can_be_had_and_are_none_of_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "range"
    limits.write_text("11500\t60999\n")
    monkeypatch.setattr(ports, "_RANGE", limits)
    found = ports.free_ports(20)
    assert len(set(found)) == 20 and all(10_240 <= port < 11_500 for port in found)
    for port in found:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Order:
        def sample(self, _population: range, _n: int) -> list[int]:
            return [taken, free]

    (free,) = ports.free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(ports.random, "SystemRandom", Order)
        assert ports.free_ports(1) == [free]
        with pytest.raises(OSError, match="2 free ports were not found"):
            ports.free_ports(2)


def test_without_the_kernels_range_linuxs_usual_one_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "nothing")
    assert all(port < 32_768 for port in ports.free_ports(20))
