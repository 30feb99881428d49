"""Jobs are plain values, and named when they are not."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from controller.core.fits import Fit, Job, model_digest


def test_a_job_takes_plain_values_and_arrays() -> None:
    arguments = {
        "a": None,
        "b": [True, 1, 2.5, "x", b"y", (1, [2])],
        "c": {"d": np.zeros((2, 3)), "e": np.float32(1.0)},
    }
    job = Job("user-1 ab12", "controller.twins.conditional:train", arguments, 7)
    # Arrays have no equality of their own: the key says what a job is.
    assert job == Job("user-1 ab12", "controller.twins.conditional:train", {}, 7)
    assert Fit("mar", job.key, model_digest(b"x")).error == ""
    assert model_digest(b"x") == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"key": ""}, "key is empty"),
        ({"function": "train"}, "job k: function 'train' is not module:name"),
        ({"function": "a.b:c.d"}, "function 'a.b:c.d'"),
        ({"function": "a b:c"}, "function 'a b:c'"),
        ({"function": "../x:c"}, "function"),
        ({"function": "__main__:train"}, "function '__main__:train'"),
        ({"seed": -1}, "job k: seed -1"),
        ({"arguments": {"seed": 1}}, "argument is named seed"),
        ({"arguments": {"x": object()}}, "job k: argument x: object is no plain value"),
        ({"arguments": {"x": [1, {"y": {1}}]}}, r"argument x\[1\]\['y'\]: set is no plain value"),
        ({"arguments": {"x": {1: 2}}}, "argument x: key 1 is no string"),
        ({"arguments": {"x": np.array([object()])}}, "argument x: an array of Python objects"),
    ],
)
def test_a_job_that_cannot_be_is_named(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        Job(**{"key": "k", "function": "a.b:c", "arguments": {}, "seed": 0, **changes})
