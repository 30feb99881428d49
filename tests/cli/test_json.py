"""``--json`` and exit statuses, of every command that there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from controller.cli import cli, emit, json_option, main

WITHOUT = {
    "controller": "a daemon",
    "gnb-mock": "a daemon",
    "edge-agent": "a daemon",
    "ptp-agent": "a daemon",
    "console": "a prompt",
}
"""Commands that print no result, and what they are."""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command below one, by what is typed for it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        if command.invoke_without_command and path:
            yield " ".join(path), command
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(commands(cli))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


def test_every_command_that_prints_a_result_prints_it_as_json_too() -> None:
    without = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT.keys(), "give it json_option and emit(), or list it with what it is"


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - WITHOUT.keys()))
def test_an_error_is_one_json_object_on_stdout_and_a_sentence_on_stderr(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, out, err = said(capsys, *name.split(), "--json", "--no-such-option")
    assert status == 2
    error = json.loads(out)["error"]
    assert error["status"] == 2 and "--no-such-option" in error["message"]
    assert error["message"] in err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["reload", "--operator", "127.0.0.1:1"], 2),
        (["watch", "--operator", "127.0.0.1:1"], 2),
        (["explain", "--operator", "127.0.0.1:1"], 2),
        (["mode", "active", "--operator", "10.0.0.1:50063"], 2),  # without --keys
        (["mode", "active", "--keys", "/nonexistent"], 2),
        (["status", "--operator", "127.0.0.1:1"], 2),
        (["check-config", "nosuch"], 1),
        (["replay", "."], 1),
        (["report", "/nonexistent"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_went_wrong_is_the_exit_status_with_json_or_without(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    plain, out, sentence = said(capsys, *arguments)
    assert (plain, out) == (status, "") and sentence.strip()
    as_json, out, again = said(capsys, *arguments, "--json")
    error = json.loads(out)["error"]
    assert as_json == error["status"] == status
    assert error["message"].strip() in again and "Traceback" not in again


def test_a_result_and_an_error_are_not_two_objects(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    @json_option
    def half(as_json: bool) -> None:
        emit({"half": True}, as_json, "half")
        raise ValueError("the other half failed")

    monkeypatch.setattr("controller.cli.cli", half)
    status, out, err = said(capsys, "--json")
    assert (status, json.loads(out)) == (1, {"half": True}) and "the other half failed" in err


def test_who_reads_a_part_leaves_no_traceback() -> None:
    command = f"{sys.executable} -m controller.cli policies --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{" and not done.stderr, done.stderr
