"""What an installation compiles beforehand."""

from __future__ import annotations

import pytest

from controller import allocators, warmup


def test_every_service_is_made_ready(capsys: pytest.CaptureFixture[str]) -> None:
    warmup.main()
    ready = [line.split()[1] for line in capsys.readouterr().out.splitlines() if " ready (" in line]
    assert ready == list(allocators.names())


def test_a_service_without_its_extra_is_named_and_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def service(name: str) -> allocators.Service:
        if name == "ar":
            return whole(name)
        raise ValueError(f"service {name!r}: the package numba is missing")

    whole = allocators.service
    monkeypatch.setattr(allocators, "service", service)
    warmup.main()
    out = capsys.readouterr().out
    assert "service 'mar': the package numba is missing" in out
    assert "service ar ready" in out
