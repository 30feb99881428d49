"""The service as a whole: what it cannot do without is said when it is asked for."""

from __future__ import annotations

import sys

import pytest

from controller import allocators


@pytest.mark.parametrize("package", ["scipy", "numba"])
def test_a_missing_package_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("controller.allocators.video")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"'video': the package {package} is missing: .venv/bin/pip install -e '.\[video\]'$"
    with pytest.raises(ValueError, match=said):
        allocators.service.__wrapped__("video")
