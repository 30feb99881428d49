"""What the commands refuse before they do anything, and what a summary's text tells."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from controller.cli import cli
from controller.cli.openrtist.client import _frames_text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["client", "127.0.0.1:99999"], "address '127.0.0.1:99999' is not HOST:PORT"),
        (["client", "127.0.0.1"], "address '127.0.0.1' is not HOST:PORT"),
        (["client", "127.0.0.1:1", "--size", "8192x8192"], "16777216 in all at most"),
        (["client", "127.0.0.1:1", "--size", "8x8"], "16 to 8192 pixels a side"),
        (
            ["server", "--address", "127.0.0.1:9099"],
            "'127.0.0.1:9099' is not a host; the port is that of --port",
        ),
        (["server", "--address", "[::1]:9099"], "'[::1]:9099' is not a host"),
        (["server", "--max-mhz", "100000"], "100000 is not in the range 1<=x<=65535"),
    ],
)
def test_a_wrong_option_is_refused_by_name(arguments: list[str], words: str) -> None:
    more = ["--video", "v.mp4"] if arguments[0] == "client" else ["--style", "s.onnx"]
    result = CliRunner().invoke(cli, ["openrtist", *arguments, *more])
    assert result.exit_code == 2 and words in " ".join(result.output.split()), result.output


def summary(**changes: object) -> dict:
    names = ("lost", "late", "dropped_by_server", "refused_by_server", "skipped", "unknown", "malformed")
    names += ("negative_delays", "over_a_clock_step", "disconnections", "silences", "session_errors")
    names += ("clock_steps", "video_errors", "not_saved")
    told = dict.fromkeys(names, 0) | {"sent": 54, "returned": 54, "seconds": 5.4, "run_s": 5.4}
    told |= {"connected_s": 5.4, "ul_bps": 1e6, "dl_bps": 1e6, "emulated_gpu_mhz": None, "problem": ""}
    return told | {"qos": None, "delay_ms": dict.fromkeys(("ul", "edge", "dl", "round_trip"))} | changes


def test_a_run_in_which_all_is_well_says_no_more_than_that() -> None:
    assert _frames_text(summary(qos={"streams": 1, "waiting": 0, "dropped_frames": 0})) == (
        "54 frames sent in 5.4 s, 54 returned, 0 lost (0 dropped by the server, 0 refused),"
        " 0 not sent in time\n"
        "up 1.00 Mbit/s, down 1.00 Mbit/s"
    )


def test_the_time_without_a_connection_is_told() -> None:
    text = _frames_text(summary(run_s=16.0, skipped=106, returned=53, lost=1, disconnections=1))
    assert text.startswith("54 frames sent in 16.0 s (5.4 s of them connected), 53 returned, 1 lost")
    assert "106 not sent in time" in text and "1 connections lost, 0 given up for silence" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("late", "7 frames came back after --timeout"),
        ("unknown", "7 results belong to no frame that was sent"),
        ("malformed", "7 results are no reply"),
        ("session_errors", "7 sessions ended with an error"),
        ("clock_steps", "7 steps of this host's clock"),
        ("negative_delays", "7 frames arrived before they were sent, as the clocks have it"),
        ("over_a_clock_step", "7 frames were under way at a step of the clock"),
        ("video_errors", "7 packets of the video did not decode"),
        ("not_saved", "7 pictures were not saved"),
    ],
)
def test_what_is_not_zero_is_told(name: str, words: str) -> None:
    assert words in _frames_text(summary(**{name: 7}))


def test_what_the_controller_did_not_get_is_told() -> None:
    text = _frames_text(summary(qos={"waiting": 7, "dropped_frames": 0, "refused": 2}))
    assert "7 messages never reached the controller" in text and "2 messages were refused" in text
    assert "for want of room" not in text
