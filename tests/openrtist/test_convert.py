"""IR version 6 to ONNX, held against an evaluator that shares no code with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.openrtist import needs

needs.extra()

import onnxruntime as ort  # noqa: E402

from openrtist.convert import import_style  # noqa: E402
from openrtist.ir import StyleError  # noqa: E402
from tests.openrtist import networks, reference  # noqa: E402
from tests.openrtist.networks import Layer  # noqa: E402


def run(model: bytes, planes: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: planes[None].astype(np.float32)})[0][0]


def picture(width: int, height: int, seed: int = 3) -> np.ndarray:
    """Smooth shapes with edges, 0..1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9) + c) for c in range(3)]
    return np.clip(0.5 + 0.4 * np.stack(waves) + 0.3 * (x > width // 2), 0, 1)


@pytest.mark.parametrize("size", [(32, 24), (33, 24), (34, 27), (47, 21)])
@pytest.mark.parametrize("kind", ["FP16", "FP32"])
def test_a_converted_network_gives_what_the_reference_gives(
    tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    files = networks.write(tmp_path, "all", networks.every_layer(), kind=kind)
    planes = picture(*size)
    wanted = reference.evaluate(*files, planes)
    got = run(import_style(*files), planes)
    assert got.shape == planes.shape
    assert np.ptp(wanted) > 50, "a picture that does not vary would prove nothing"
    # float32 against float64, on values of some hundreds.
    assert np.abs(got - wanted).max() < 2e-3


@needs.real_data
@pytest.mark.parametrize("size", [(48, 32), (50, 35)])
def test_the_scream_deviates_from_the_reference_by_less_than_a_thousandth_of_a_grey_level(
    size: tuple[int, int],
) -> None:
    planes = picture(*size)
    wanted = reference.evaluate(needs.XML, needs.WEIGHTS, planes)
    got = run(import_style(needs.XML, needs.WEIGHTS), planes)
    assert np.ptp(wanted) > 100
    deviation = np.abs(got - wanted).max()
    print(f"largest deviation at {size[0]}x{size[1]}: {deviation:.2e} of 255")
    assert deviation < 1e-3


def test_a_fixed_resolution_is_in_the_model(tmp_path: Path) -> None:
    files = networks.write(tmp_path, "all", networks.every_layer())
    model = import_style(*files, width=40, height=28)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 28, 40] == session.get_outputs()[0].shape
    assert run(model, picture(40, 28)).shape == (3, 28, 40)
    with pytest.raises(ValueError, match="both a width and a height"):
        import_style(*files, width=40)


# ---- what cannot be converted ---------------------------------------------------------------------------


def broken(folder: Path, change: Callable[[list[Layer]], object]) -> tuple[Path, Path]:
    layers = networks.every_layer()
    change(layers)
    return networks.write(folder, "broken", layers)


def test_truncated_weights_name_file_layer_and_offset(tmp_path: Path) -> None:
    xml, weights = networks.write(tmp_path, "all", networks.every_layer())
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(
        StyleError, match=r"all\.bin: biases of layer \d+ 'l\d+' \(Convolution\) at offset \d+"
    ):
        import_style(xml, weights)
    weights.write_bytes(b"")
    with pytest.raises(StyleError, match=r"all\.bin: weights of layer 2 'l2' \(Convolution\) at offset 0"):
        import_style(xml, weights)


@needs.real_data
@pytest.mark.parametrize("size", [0, 1000, 1_679_000, 3_358_469])
def test_a_truncated_scream_is_refused_at_the_layer_where_it_ends(tmp_path: Path, size: int) -> None:
    weights = tmp_path / "the_scream.bin"
    weights.write_bytes(needs.WEIGHTS.read_bytes()[:size])
    with pytest.raises(StyleError, match=r"the_scream\.bin: \w+ of layer \d+ .* at offset \d+"):
        import_style(needs.XML, weights)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    xml, weights = networks.write(tmp_path, "all", networks.every_layer())
    weights.write_bytes(weights.read_bytes() + b"\0\0")
    with pytest.raises(StyleError, match="weights of another network"):
        import_style(xml, weights)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    layers = networks.every_layer()
    layers[2].blobs["biases"][1] = np.nan
    with pytest.raises(StyleError, match=r"biases of layer 2 .* not a number"):
        import_style(*networks.write(tmp_path, "nan", layers))


@pytest.mark.parametrize("version", ["5", "7", "10", "11"])
def test_another_ir_version_is_named(tmp_path: Path, version: str) -> None:
    files = networks.write(tmp_path, "all", networks.every_layer(), version=version)
    with pytest.raises(StyleError, match=rf"all\.xml: IR version {version}, only version 6"):
        import_style(*files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ls: ls.__setitem__(5, Layer("Crop", [4])), r"layer 5 'l5' \(Crop\): layers of this type"),
        (lambda ls: ls[1].data.update(pad_mode="symmetric"), r"layer 1 .*pad_mode 'symmetric'"),
        (lambda ls: ls[1].data.update(pads_begin="1,0,1,1"), r"layer 1 .*pads_begin"),
        (lambda ls: ls[1].data.pop("pads_end"), r"layer 1 .*pads_end None is not a list"),
        (lambda ls: ls[2].data.update(kernel="3"), r"layer 2 .*kernel '3' has 1 values"),
        (lambda ls: ls[2].data.update(kernel="5,5"), r"layer 2 .*weights of \d+ bytes, \d+ for"),
        (lambda ls: ls[2].data.update(kernel="-3,-3"), r"layer 2 .*kernel '-3,-3' is not from 1 to 65536"),
        (lambda ls: ls[2].data.update(kernel="99999999999999999999,1"), r"layer 2 .*is not from 1 to 65536"),
        (lambda ls: ls[2].data.update(strides="0,0"), r"layer 2 .*strides '0,0' is not from 1"),
        (lambda ls: ls[2].data.update(dilations="0,1"), r"layer 2 .*dilations '0,1' is not from 1"),
        (lambda ls: ls[2].data.update(pads_end="-1,0"), r"layer 2 .*pads_end '-1,0' is not from 0"),
        (lambda ls: ls[2].data.update(output="-8"), r"layer 2 .*output '-8' is not from 1"),
        (lambda ls: ls[11].__setattr__("sources", []), r"layer 11 .*0 inputs, not 1"),
        (lambda ls: ls[2].__setattr__("sources", [1, 1]), r"layer 2 .*2 inputs, not 1"),
        (lambda ls: ls[5].__setattr__("type", "Add"), r"layer 5 'l5' \(Add\): layers of this type"),
        (lambda ls: ls[5].__setattr__("type", "Keep"), r"layer 5 'l5' \(Keep\): layers of this type"),
        (lambda ls: ls[5].__setattr__("type", "Value"), r"layer 5 'l5' \(Value\): layers of this type"),
        (lambda ls: ls[1].data.update(pad_mode="constant", pad_value="x"), r"layer 1 .*pad_value 'x' is not"),
        (lambda ls: ls[2].data.update(group="2"), r"layer 2 .*group '2'"),
        (lambda ls: ls[2].data.update(auto_pad="same_upper"), r"layer 2 .*auto_pad"),
        (lambda ls: ls[2].blobs.pop("weights"), r"layer 2 .*has no weights"),
        (lambda ls: ls[3].data.update(across_channels="1"), r"layer 3 .*across_channels '1'"),
        (lambda ls: ls[3].data.update(eps="small"), r"layer 3 .*eps 'small'"),
        (lambda ls: ls[3].data.update(eps="-1"), r"layer 3 .*eps '-1'"),
        (lambda ls: ls[5].data.update(negative_slope="0.1"), r"layer 5 .*negative_slope"),
        (lambda ls: ls[5].data.update(negative_slope="y"), r"layer 5 .*negative_slope 'y' is not a number"),
        (lambda ls: ls[17].data.update(factor="inf"), r"layer 17 .*factor 'inf' is not a number"),
        (lambda ls: ls[16].data.update(operation="div"), r"layer 16 .*operation 'div'"),
        (lambda ls: ls[17].data.update(type="caffe.ResampleParameter.LINEAR"), r"layer 17 .*LINEAR"),
        (lambda ls: ls[17].data.update(factor="1.5"), r"layer 17 .*factor '1.5'"),
        (lambda ls: ls.pop(), r"12 channels, a picture has 3"),
        (lambda ls: ls[1].__setattr__("sources", [4]), r"fed by a layer that is not there, or by itself"),
        (lambda ls: ls.append(Layer("ReLU", [3])), r"1 inputs and 2 outputs"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(
    tmp_path: Path, change: Callable[[list[Layer]], object], words: str
) -> None:
    with pytest.raises(StyleError, match=words) as refused:
        import_style(*broken(tmp_path, change))
    assert "broken." in str(refused.value)


def test_an_unknown_precision_is_named(tmp_path: Path) -> None:
    xml, weights = networks.write(tmp_path, "all", networks.every_layer())
    xml.write_text(xml.read_text().replace('name="l2" precision="FP16"', 'name="l2" precision="I8"'))
    with pytest.raises(StyleError, match=r"layer 2 .*precision 'I8'"):
        import_style(xml, weights)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<net version='6'><layers>", r"line 1, column \d+: not XML"),
        ("<?xml version='1.0' encoding='utf-7'?><net/>", r"x\.xml: .*not XML: "),
        ("<html/>", "is not an OpenVINO network"),
        ("<net version='6'><layers><layer name='a' type='Input'/></layers></net>", "lacks a field"),
        ("<net version='6'><layers/><edges/></net>", "0 inputs and 0 outputs"),
    ],
)
def test_a_file_that_is_no_network_is_named(tmp_path: Path, text: str, words: str) -> None:
    xml = tmp_path / "x.xml"
    xml.write_text(text)
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(StyleError, match=words):
        import_style(xml, tmp_path / "x.bin")


def test_layers_that_do_not_fit_together_are_told_in_one_line(tmp_path: Path) -> None:
    layers = networks.every_layer()
    # The stride of the second convolution is gone, so its result does not fit the branch beside it.
    layers[12].data["strides"] = "2,2"
    files = networks.write(tmp_path, "unfit", layers)
    with pytest.raises(StyleError, match=r"unfit\.xml: its layers do not make a network: ") as refused:
        import_style(*files, width=40, height=28)
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from controller.cli import cli
    from controller.store import files

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_atomic", full)
    xml, weights = networks.write(tmp_path, "plain", networks.plain())
    output = tmp_path / "plain.onnx"
    result = CliRunner().invoke(cli, ["openrtist", "import-style", str(xml), str(weights), "-o", str(output)])
    assert isinstance(result.exception, OSError) and str(output) in str(result.exception)
