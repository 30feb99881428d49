"""The authors' timestamp files, good and bad."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from controller.cli import cli
from openrtist import timestamps
from openrtist.timestamps import TimestampError, column_of

T0 = 1_720_457_989_000_000_000
MS = 1_000_000
NAMES = (
    "feanor_sent_timestamps_client.txt",
    "finarfin_recv_timestamps_server.txt",
    "finarfin_sent_timestamps_server.txt",
    "feanor_recv_timestamps_client.txt",
)
LEGS = (0, 12, 21, 40)


def lines(port: int, frames: range, leg: int, start: int = T0, gap_ms: int = 33) -> list[str]:
    return [f"{port} {n} {start + (n * gap_ms + leg) * MS}" for n in frames]


def write(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, content in files.items():
        (folder / name).write_text("\n".join(content) + "\n")
    return folder


def whole(folder: Path, ports: tuple[int, ...] = (9099,), n: int = 400) -> Path:
    return write(
        folder,
        {
            name: [line for port in ports for line in lines(port, range(n), leg)]
            for name, leg in zip(NAMES, LEGS, strict=True)
        },
    )


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *zip(NAMES, range(4), strict=True),
        ("SENT-client-2.log", 0),
        ("server.received", 1),
        ("send_timestamp_server", 2),
        ("iperf3_dl_server.txt", None),
        ("sent_recv_client.txt", None),
        ("sent_client_server.txt", None),
        ("notes.txt", None),
    ],
)
def test_a_file_is_known_by_its_name(name: str, column: int | None) -> None:
    assert column_of(name) == column


def test_four_files_make_frames_with_four_times(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of ours")
    out = timestamps.read(whole(tmp_path, (9099, 9100)))
    assert [f.flow for f in out.flows] == ["port-9099", "port-9100"] and len(out.files) == 4
    frames = out.flows[1].frames
    assert frames.shape == (400, 5) and (frames[:, 0] == np.arange(400)).all()
    assert (np.diff(frames[:, 1:], axis=1) == np.array([12, 9, 19]) * MS).all()
    assert out.flows[0].start_ns == T0 and out.flows[0].stop_ns == T0 + 399 * 33 * MS
    assert out.counters == {"frames": 800, "lost": 0, "incomplete": 0, "negative_delays": 0}
    assert out.problems == []


def test_garbage_is_counted_and_named_by_file_and_line(tmp_path: Path) -> None:
    folder = whole(tmp_path, n=20)
    path = folder / NAMES[1]
    text = path.read_text().splitlines()
    text[3] = "9099 3"
    text[5] = "9099 five 1720457989000000000"
    text[7] = "99999 7 1720457989000000000"
    text[9] = "9099 9 1720457989"
    text[11] = "\x00\ufffd binary"
    text[19] = text[19][:-2]  # the writer was killed in the middle of the line
    path.write_text("\n".join(text))
    out = timestamps.read(folder)
    assert out.counters["garbage"] == 6 and out.counters["incomplete"] == 6
    assert [p.split(": ")[0] for p in out.problems] == [f"{path}:{n}" for n in (4, 6, 8, 10, 12, 20)]
    assert "'9099 3' is not 'port sequence nanoseconds'" in out.problems[0]
    assert "1720457989 is not a CLOCK_REALTIME time" in out.problems[3]
    assert np.count_nonzero(out.flows[0].frames[:, 2]) == 14, "the other lines of the file stand"


def test_duplicates_disorder_and_clocks_that_step_are_counted_and_named(tmp_path: Path) -> None:
    folder = whole(tmp_path, n=20)
    sent, received = folder / NAMES[0], folder / NAMES[1]
    text = sent.read_text().splitlines()
    sent.write_text("\n".join([*text[:6], text[5], *text[6:]]) + "\n")
    text = received.read_text().splitlines()
    text[8], text[9] = text[9], text[8]
    text.insert(12, text[11].replace("9099 11 ", "9099 11 ")[:-9] + "999999999")
    received.write_text("\n".join(text) + "\n")
    out = timestamps.read(folder)
    assert out.counters["duplicates"] == 2 and out.counters["out_of_order"] == 1
    assert out.counters["clock_back"] == 1
    assert any(p.startswith(f"{sent}:7: frame 5 of port 9099 was sent already") for p in out.problems)
    assert any(p.startswith(f"{received}:10: frame 8 comes after 9") for p in out.problems)
    frames = out.flows[0].frames
    assert (frames[:, 2] - frames[:, 1] == 12 * MS).all(), "the first time stands"


def test_a_copy_of_the_files_in_a_folder_below_makes_no_second_run(tmp_path: Path) -> None:
    folder = whole(tmp_path, n=50)
    (folder / "copy").mkdir()
    whole(folder / "copy", n=50)
    got = timestamps.read(folder)
    assert [len(f.frames) for f in got.flows] == [50]
    assert got.counters["duplicates"] >= 50


DAY = 86_400_000 * MS


def add(file: Path, *more: str) -> None:
    file.write_text(file.read_text() + "".join(f"{line}\n" for line in more))


@pytest.mark.parametrize("days", [-579, -23, 23, 579])
@pytest.mark.parametrize("after", [0, 150, 300])
def test_a_line_whose_time_is_days_off_is_left_out_and_named(tmp_path: Path, days: int, after: int) -> None:
    sent = whole(tmp_path, n=300) / NAMES[0]
    text = sent.read_text().splitlines()
    text.insert(after, f"9099 300 {T0 + days * DAY}")
    sent.write_text("\n".join(text) + "\n")
    # A copy of the file does not confirm its wrong line.
    (tmp_path / "the_copy").mkdir()
    (tmp_path / "the_copy" / NAMES[0]).write_text(sent.read_text())
    out = timestamps.read(tmp_path)
    assert [len(f.frames) for f in out.flows] == [300] and out.counters["far_off"] == 2
    assert out.counters["clock_back"] == out.counters["clock_ahead"] == out.counters["lost"] == 0
    assert any(p.startswith(f"{sent}:{after + 1}: {T0 + days * DAY} is minutes away") for p in out.problems)


def test_a_wrong_time_of_a_received_frame_does_not_make_the_rest_go_back(tmp_path: Path) -> None:
    received = whole(tmp_path, n=300) / NAMES[3]
    text = received.read_text().splitlines()
    text[7] = f"9099 7 {T0 + 23 * DAY}"
    received.write_text("\n".join(text) + "\n")
    out = timestamps.read(tmp_path)
    assert out.counters["far_off"] == out.counters["lost"] == 1 and out.counters["clock_back"] == 0
    assert [p.split(": ")[0] for p in out.problems] == [f"{received}:8"]


def test_a_pause_between_two_experiments_loses_nothing(tmp_path: Path) -> None:
    # The flow goes on in its numbers; only the last frames came back, and the very last one did not.
    later = T0 + DAY
    for name, leg in zip(NAMES, LEGS, strict=True):
        write(tmp_path, {name: [*lines(9099, range(50), leg), *lines(9099, range(50, 52), leg, later)]})
    add(tmp_path / NAMES[0], f"9099 52 {later + 60_000 * MS}")
    out = timestamps.read(tmp_path)
    assert [len(f.frames) for f in out.flows] == [53] and out.counters["far_off"] == 0
    assert out.counters["clock_ahead"] == 4, "one in each file, and it is said"
    assert any(f"{tmp_path / NAMES[0]}:51: the time goes ahead by 86400 s" in p for p in out.problems)


def test_a_frame_that_is_alone_on_its_port_stands_with_those_of_other_ports(tmp_path: Path) -> None:
    sent = whole(tmp_path, n=300) / NAMES[0]
    add(sent, f"9100 0 {T0 + 5 * MS}", f"9101 0 {T0 + 23 * DAY}")
    out = timestamps.read(tmp_path)
    assert [f.port for f in out.flows] == [9099, 9100] and out.counters["far_off"] == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    write(alone, {NAMES[0]: [f"9099 0 {T0}"]})
    assert len(timestamps.read(alone).flows) == 1


def test_frames_that_nobody_sent_and_frames_that_never_came_back(tmp_path: Path) -> None:
    folder = whole(tmp_path, n=20)
    path = folder / NAMES[0]
    text = path.read_text().splitlines()
    path.write_text("\n".join(text[:12]) + "\n")
    path = folder / NAMES[3]
    path.write_text("\n".join(path.read_text().splitlines()[:10]) + "\n")
    out = timestamps.read(folder)
    assert out.counters["never_sent"] == 16 and out.counters["lost"] == 2
    assert len(out.flows[0].frames) == 12
    assert any(f"{folder / NAMES[1]}:13: frame 12 of port 9099 was not sent" in p for p in out.problems)


def test_a_flow_that_begins_again_on_its_port_is_another_flow(tmp_path: Path) -> None:
    later = T0 + 100_000 * MS
    for name, leg in zip(NAMES, LEGS, strict=True):
        both = [*lines(9099, range(50), leg), *lines(9099, range(30), leg, later)]
        write(tmp_path, {name: both})
    out = timestamps.read(tmp_path)
    assert [(f.flow, len(f.frames)) for f in out.flows] == [("port-9099", 50), ("port-9099-2", 30)]
    assert all((np.diff(f.frames[:, 1:], axis=1) == np.array([12, 9, 19]) * MS).all() for f in out.flows)
    assert out.counters["duplicates"] == out.counters["out_of_order"] == 0


def test_negative_delays_are_kept_and_counted(tmp_path: Path) -> None:
    for name, leg in zip(NAMES, (0, -7, 2, 40), strict=True):
        write(tmp_path, {name: lines(9099, range(10), leg)})
    out = timestamps.read(tmp_path)
    assert out.counters["negative_delays"] == 10
    assert (out.flows[0].frames[:, 2] < out.flows[0].frames[:, 1]).all()


def test_a_folder_without_times_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TimestampError, match="no such folder"):
        timestamps.read(tmp_path / "nowhere")
    (tmp_path / NAMES[1]).write_text("9099 0 1\n")
    with pytest.raises(TimestampError, match=r"no file of the times that a client sent"):
        timestamps.read(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = whole(tmp_path, n=3) / "server"
    below.mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == below:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    # Not chmod: root may read everything.
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=str(below)):
        timestamps.read(tmp_path)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    link = whole(tmp_path, n=3) / "server_recv.txt"
    link.symlink_to(tmp_path / "gone")
    (tmp_path / "notes").symlink_to(tmp_path / "gone")
    with pytest.raises(TimestampError, match=rf"{link}: a link that leads to no file"):
        timestamps.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not one frame was sent: 0 lines that are none$"),
        (
            "what\never\n",
            r"not one frame was sent: 2 lines that are none, the first at .*client.txt:1: 'what'",
        ),
    ],
)
def test_sent_times_of_which_none_can_be_used_are_an_error(tmp_path: Path, content: str, words: str) -> None:
    sent = whole(tmp_path, n=3) / NAMES[0]
    sent.write_text(content)
    with pytest.raises(TimestampError, match=words) as refused:
        timestamps.read(tmp_path)
    assert str(refused.value).startswith(f"{sent}: ")


def test_only_so_many_problems_are_named(tmp_path: Path) -> None:
    folder = whole(tmp_path, n=3)
    (folder / NAMES[1]).write_text("garbage\n" * 1000)
    out = timestamps.read(folder)
    assert out.counters["garbage"] == 1000 and len(out.problems) == timestamps.MAX_NAMED


# ---- through the command --------------------------------------------------------------------------------


def run(*arguments: str) -> dict:
    result = CliRunner().invoke(cli, ["openrtist", "import-timestamps", *arguments, "--json"])
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


def test_qos_of_each_control_slot_is_that_of_the_core(tmp_path: Path) -> None:
    # 10 s of good frames, then 10 s in which the uplink takes 500 ms.
    for name, leg in zip(NAMES, LEGS, strict=True):
        slow = leg if leg == 0 else leg + 500
        content = [*lines(9099, range(303), leg), *lines(9099, range(303, 606), slow)]
        write(tmp_path, {name: content})
    out = run(str(tmp_path))
    assert out["control_slots"] == 4 and out["busy_slots"] == 4
    assert [row["round_trip"]["q"] for row in out["slots"]] == [1, 1, 0, 0]
    assert [row["ul"]["q"] for row in out["slots"]] == [1, 1, 0, 0]
    assert [row["dl"]["q"] for row in out["slots"]] == [1, 1, 1, 1]
    assert out["qos_delivery_ratio_busy"]["round_trip"] == 0.5
    # As a controller would have seen it: what came back after the close was not back yet.
    assert [row["late_frames"] > 0 for row in out["slots"]] == [False, False, True, True]
    assert out["slots"][0]["ul"]["ms"]["port-9099"] == pytest.approx(12)
    assert out["slots"][3]["ul"]["ms"]["port-9099"] == pytest.approx(512, rel=0.05)


def test_times_that_are_years_apart_are_an_error_that_names_their_lines(tmp_path: Path) -> None:
    sent = whole(tmp_path, n=300) / NAMES[0]
    add(sent, *lines(9099, range(300, 302), 0, T0 + 579 * DAY))
    result = CliRunner().invoke(cli, ["openrtist", "import-timestamps", str(tmp_path)])
    assert result.exit_code == 1 and "579 days apart" in result.output
    assert "the last frame 301 of port-9099" in result.output
    assert f"{sent}:301: the time goes ahead by" in result.output


def test_the_messages_written_are_those_of_the_qos_ingest(tmp_path: Path) -> None:
    from google.protobuf.proto import parse_length_prefixed

    from controller.links import codec
    from wire import qos_pb2

    file = tmp_path / "out.qos"
    run(str(whole(tmp_path, n=1500)), "--output", str(file))
    messages = []
    with file.open("rb") as stream:
        while (message := parse_length_prefixed(qos_pb2.QosMessage, stream)) is not None:
            messages.append(message)
    assert [m.WhichOneof("body") for m in messages] == ["flow_start", "frames", "frames", "flow_stop"]
    flow = codec.open_flow_start(messages[0].flow_start)
    assert flow.flow == "port-9099" and flow.start_ns == T0
    batches = [codec.open_frame_batch(m.frames, synchronised=True, received_ns=T0) for m in messages[1:3]]
    assert [len(b) for b in batches] == [1024, 476]
    assert (batches[1].columns[:, 4] - batches[1].columns[:, 1] == 40 * MS).all()
    assert codec.open_flow_stop(messages[3].flow_stop).time_ns == T0 + 1499 * 33 * MS


def test_the_table_is_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is missing: the extra research")
    file = tmp_path / "frames.parquet"
    folder = whole(tmp_path, n=10)
    path = folder / NAMES[3]
    path.write_text("\n".join(path.read_text().splitlines()[:9]) + "\n")
    run(str(folder), "--output", str(file))
    table = parquet.read_table(file).to_pydict()
    assert table["flow"] == ["port-9099"] * 10 and table["sequence"] == list(range(10))
    assert table["ue_received_ns"][9] is None and table["ue_received_ns"][8] == T0 + (8 * 33 + 40) * MS


def test_the_run_folder_can_be_replayed(tmp_path: Path) -> None:
    folder, record = tmp_path / "files", tmp_path / "run"
    folder.mkdir()
    run(str(whole(folder)), "--output", str(record))
    result = CliRunner().invoke(cli, ["replay", str(record), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["compared"] == 3 and told["different"] == 0


def test_another_kind_of_output_is_refused(tmp_path: Path) -> None:
    arguments = ["openrtist", "import-timestamps", str(whole(tmp_path, n=5)), "--output", "x.csv"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and "neither .parquet, .qos nor a folder" in result.output
