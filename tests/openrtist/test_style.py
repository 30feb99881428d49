"""Stylised pictures are pictures; what is no style is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.openrtist import needs

needs.extra()

from openrtist import picture  # noqa: E402
from openrtist.convert import import_style  # noqa: E402
from openrtist.ir import StyleError  # noqa: E402
from openrtist.style import Style, load  # noqa: E402
from openrtist.video import open_source  # noqa: E402
from tests.openrtist import networks, reference  # noqa: E402


def onnx_file(folder: Path, name: str, layers: list[networks.Layer], **size: int) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(import_style(*networks.write(folder, name, layers), **size))
    return path


def edges(shown: np.ndarray) -> np.ndarray:
    """How strongly the grey level changes at each pixel, a little blurred."""
    grey = shown.astype(float).mean(axis=2)
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    padded = np.pad(strength, 2, mode="edge")
    height, width = strength.shape
    return np.mean([padded[i : i + height, j : j + width] for i in range(5) for j in range(5)], axis=0)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(edges(one).ravel(), edges(other).ravel())[0, 1])


@needs.real_data
def test_a_frame_of_the_real_video_in_the_real_style_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "the_scream.onnx"
    path.write_bytes(import_style(needs.XML, needs.WEIGHTS))
    style = Style(path, provider="cpu")
    source = open_source(str(needs.VIDEO), 160, 96, loop=False)
    frame, other = source.at(3.0), source.at(5.0)
    source.close()
    assert frame is not None and other is not None
    painted = style.paint(frame)
    assert painted.shape == frame.shape and painted.dtype == np.uint8
    # It is a picture: it varies, in every channel, and is not the input.
    assert painted.std(axis=(0, 1)).min() > 20
    assert np.abs(painted.astype(int) - frame).mean() > 20
    # The structure is still there, and it is that of this frame, not of any other.
    turned = frame[::-1, ::-1]
    assert likeness(painted, frame) > 0.5 > likeness(painted, turned) + 0.2
    # It is what the weights say, by another evaluation.
    wanted = reference.evaluate(needs.XML, needs.WEIGHTS, frame.transpose(2, 0, 1) / 255)
    off = np.abs(painted - np.clip(wanted, 0, 255).transpose(1, 2, 0))
    assert off.max() <= 1.001, "more than rounding down makes"
    # And it survives its way home.
    shown = picture.decode(picture.encode(painted, picture.DOWN_QUALITY))
    assert np.abs(shown.astype(int) - painted).mean() < 15
    assert likeness(shown, frame) > 0.45


def test_a_plain_style_gives_the_picture_back_and_its_negative_the_negative(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    frame = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    same = Style(onnx_file(tmp_path, "plain", networks.plain())).paint(frame)
    negative = Style(onnx_file(tmp_path, "negative", networks.inverse())).paint(frame)
    # Channels stay in place, and rounding down costs at most one grey level.
    assert np.abs(same.astype(int) - frame).max() <= 1
    assert np.abs(negative.astype(int) - (255 - frame.astype(int))).max() <= 1


def test_values_beyond_the_grey_levels_are_clipped(tmp_path: Path) -> None:
    frame = np.full((20, 20, 3), 200, np.uint8)
    assert (Style(onnx_file(tmp_path, "bright", networks.plain(4 * 255.0))).paint(frame) == 255).all()
    assert (Style(onnx_file(tmp_path, "dark", networks.plain(-255.0))).paint(frame) == 0).all()


def test_styles_go_by_their_names(tmp_path: Path) -> None:
    one = onnx_file(tmp_path, "one", networks.plain())
    two = onnx_file(tmp_path, "two", networks.inverse())
    assert list(load([two, one])) == ["two", "one"] and list(load([tmp_path])) == ["one", "two"]
    with pytest.raises(StyleError, match=r"style 'one' is also in"):
        load([one, tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(StyleError, match=r"empty: no \*\.onnx in the folder"):
        load([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError):
        load([tmp_path / "three.onnx"])


def test_a_style_file_that_is_cut_off_or_another_model_is_named(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, "all", networks.every_layer())
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(StyleError, match=r"all\.onnx: not an ONNX model"):
            Style(path)
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 10]) for n in "xy")
    other = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(other, str(path))
    with pytest.raises(StyleError, match=r"all\.onnx: not a style"):
        Style(path)


def test_a_picture_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="12x40: 16 pixels"):
        Style(onnx_file(tmp_path, "any", networks.every_layer())).paint(np.zeros((40, 12, 3), np.uint8))
    fixed = Style(onnx_file(tmp_path, "fixed", networks.every_layer(), width=40, height=24))
    assert fixed.size == (40, 24)
    assert fixed.paint(np.zeros((24, 40, 3), np.uint8)).shape == (24, 40, 3)
    with pytest.raises(StyleError, match="takes 40x24, the picture is 24x40"):
        fixed.paint(np.zeros((40, 24, 3), np.uint8))


def test_cuda_that_is_not_there_is_said(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    path = onnx_file(tmp_path, "plain", networks.plain())
    with pytest.raises(StyleError, match="CUDA was asked for"):
        Style(path, provider="cuda")
    assert Style(path).provider == "cpu"


def test_cuda_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As onnxruntime-gpu on a host without its libraries: the provider is listed, the session lacks it."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    path = onnx_file(tmp_path, "plain", networks.plain())
    assert Style(path).provider == "cpu"
    assert "style plain: CUDA could not be started" in caplog.text
    with pytest.raises(StyleError, match="could not be started"):
        Style(path, provider="cuda")


@pytest.mark.parametrize("size", [0, 1, 100, -200])
def test_bytes_that_are_no_jpeg_are_refused(size: int) -> None:
    rng = np.random.default_rng(2)
    jpeg = picture.encode(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), 90)
    assert picture.decode(jpeg).shape == (64, 64, 3)
    with pytest.raises(picture.BadPicture):
        picture.decode(jpeg[:size])
    with pytest.raises(picture.BadPicture):
        picture.decode(b"\x89PNG\r\n\x1a\n" + jpeg)
