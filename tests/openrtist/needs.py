"""What these tests need: the extra, and for some the shared data."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "openrtist"
XML, WEIGHTS, VIDEO = DATA / "16.xml", DATA / "the_scream.bin", DATA / "bigbuckbunny.mp4"


def extra() -> None:
    """Skip the module where the extra openrtist is not installed."""
    for name in ("av", "gabriel_client", "gabriel_server", "onnx", "onnxruntime", "PIL"):
        pytest.importorskip(name, reason=f"{name} is missing: pip install 'prbandit[openrtist]'")


FIELD = DATA.parent / "field-cases"


def field_case(name: str) -> pytest.MarkDecorator:
    """Skip where that file is not among the shared data."""
    return pytest.mark.skipif(
        not (FIELD / name).exists(), reason=f"../shared/data/field-cases/{name} is not here"
    )


real_data = pytest.mark.skipif(
    not all(path.exists() for path in (XML, WEIGHTS, VIDEO)),
    reason="../shared/data/openrtist is not here: the real style and video",
)
