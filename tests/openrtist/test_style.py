"""Stylised pictures are pictures; what is no style is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.openrtist import needs

needs.extra()

from openrtist import picture  # noqa: E402
from openrtist.convert import import_style  # noqa: E402
from openrtist.ir import StyleError  # noqa: E402
from openrtist.style import Scale, Style, load, scale_of  # noqa: E402
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


def network(
    path: Path,
    nodes: Sequence[tuple[str, Any]],
    *,
    kind: str = "FLOAT",
    rows_first: bool = False,
    size: tuple[int, int] | None = None,
    batch: object = 1,
    extra: bool = False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A model of element-wise operations, each with a constant, one after another."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    sides = list(size) if size else ["h", "w"]
    shape = [batch, *sides, 3] if rows_first else [batch, 3, *sides]
    inside = np.float16 if kind == "FLOAT16" else np.float32
    made, constants, at = [], [], "x"
    if kind == "UINT8":
        made.append(helper.make_node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT))
        at = "x32"
    for k, (op, value) in enumerate(nodes):
        constants.append(numpy_helper.from_array(np.asarray(value, inside), f"c{k}"))
        sources = [at, f"c{k}"]
        at = "y" if k == len(nodes) - 1 else f"t{k}"
        made.append(helper.make_node(op, sources, [at]))
    given = TensorProto.FLOAT16 if kind == "FLOAT16" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("y", given, shape)]
    if extra:
        made.append(helper.make_node("ReduceMean", ["y"], ["mean"], keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("mean", given, []))
    x = helper.make_tensor_value_info("x", getattr(TensorProto, kind), shape)
    model = helper.make_model(
        helper.make_graph(made, "g", [x], outputs, constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


# What gives the picture back where it gets the values that it was made for, and something else otherwise.
SAME = [("Mul", 1.0)]
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "0..1 to 0..255": ({"nodes": [("Mul", 255.0)]}, "RGB 0..1 to 0..255"),
    "0..255 to 0..255": ({"nodes": SAME}, "RGB 0..255 to 0..255"),
    "0..255, about its mean": ({"nodes": [("Sub", 127.5), ("Add", 127.5)]}, "RGB 0..255 to 0..255"),
    "0..1 to 0..1": ({"nodes": [("Max", 0.0), ("Min", 1.0)]}, "RGB 0..1 to 0..1"),
    "0..255 to 0..1": ({"nodes": [("Div", 255.0), ("Min", 1.0)]}, "RGB 0..255 to 0..1"),
    "-1..1 to -1..1": ({"nodes": [("Min", 1.0), ("Max", -1.0)]}, "RGB -1..1 to -1..1"),
    "rows first": ({"nodes": SAME, "rows_first": True}, "RGB 0..255 to 0..255"),
    "bytes": ({"nodes": SAME, "kind": "UINT8"}, "RGB 0..255 to 0..255"),
    "bytes to 0..1": ({"nodes": [("Div", 255.0)], "kind": "UINT8"}, "RGB 0..255 to 0..1"),
    "half precision": ({"nodes": [("Mul", 255.0)], "kind": "FLOAT16"}, "RGB 0..1 to 0..255"),
    "a batch of any size": ({"nodes": SAME, "batch": "batch"}, "RGB 0..255 to 0..255"),
    "of one size": ({"nodes": SAME, "size": (40, 48)}, "RGB 0..255 to 0..255"),
    "several outputs": ({"nodes": SAME, "extra": True}, "RGB 0..255 to 0..255"),
    "Windows ML": (
        {"nodes": SAME, "metadata": {"Image.NominalPixelRange": "NominalRange_0_255"}},
        "RGB 0..255 to 0..255",
    ),
    "Windows ML, BGR": (
        {"nodes": SAME, "metadata": {"Image.BitmapPixelFormat": "Bgr8"}},
        "BGR 0..255 to 0..255",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_style_gets_the_values_that_it_takes(form: str, tmp_path: Path) -> None:
    options, says = FORMS[form]
    style = Style(network(tmp_path / "style.onnx", **options))
    frame = np.random.default_rng(5).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    assert str(style.scale) == says
    assert np.abs(style.paint(frame).astype(int) - frame).max() <= 1


def test_the_order_of_colours_is_that_of_the_metadata_or_of_the_option(tmp_path: Path) -> None:
    red_alone = [("Mul", np.array([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1))]
    frame = np.random.default_rng(5).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    told = {"metadata": {"Image.BitmapPixelFormat": "Bgr8"}}
    for options, scale in ((told, None), ({}, scale_of("0..255", "bgr"))):
        shown = Style(network(tmp_path / "s.onnx", red_alone, **options), scale=scale).paint(frame)
        assert (shown[:, :, 2] == frame[:, :, 2]).all() and not shown[:, :, :2].any()


def test_what_paints_the_same_whatever_the_picture_is_said_and_can_be_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Black below 1000: no range of a trial reaches that.
    path = network(tmp_path / "black.onnx", [("Sub", 1000.0)])
    assert Style(path).scale == Scale()
    assert "style black paints nearly the same whatever the picture" in caplog.text
    assert "--range 0..255" in caplog.text
    caplog.clear()
    assert str(Style(path, scale=scale_of("0..255")).scale) == "RGB 0..255 to 0..255" and not caplog.text
    with pytest.raises(ValueError, match=r"'0\.\.2' is no range"):
        scale_of("0..2")


def test_own_styles_are_not_tried(tmp_path: Path) -> None:
    assert Style(onnx_file(tmp_path, "plain", networks.plain())).scale.why == "by its metadata"


def test_a_network_that_rounds_its_sides_still_gives_a_picture_of_the_same_size(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, "all", networks.every_layer())
    frame = np.random.default_rng(5).integers(0, 256, (41, 50, 3)).astype(np.uint8)
    assert Style(path).paint(frame).shape == frame.shape


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
