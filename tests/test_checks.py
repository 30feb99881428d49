"""One validation: check-config, daemon, emulated gNB and reload refuse the same in the same words."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller import config
from controller.cell import ControlledCell
from controller.cli import cli
from controller.config import ConfigError
from controller.journal import Journal
from controller.links.operator import ControllerStatus
from tests.test_cell import CARRIER, T0, Face, Memory
from tests.test_commands import Direct

SLICES = """\
cells:
  - id: c
    slices:
      - id: a
        policy: mucb1
        actions:
          ul_prb: [10, 90]
          dl_prb: [10, 90]
          gpu_mhz: [500, 1600]
      - id: b
        policy: mucb1
        actions: {ul_prb: [10], dl_prb: [10], gpu_mhz: [500]}
emulation:
  prb: 106
  schedule: always
"""


def refused(*arguments: str) -> str:
    """What a command says as it refuses; it ends with 1."""
    result = CliRunner().invoke(cli, list(arguments))
    assert isinstance(result.exception, ConfigError), (result.exception, result.output)
    return str(result.exception)


def everywhere(file: Path) -> list[str]:
    """The lines of check-config, without the file's name, after a look that all others say the same."""
    said = refused("check-config", str(file))
    for command in (
        ("controller", "--no-record"),
        ("gnb-mock", "--qos", "", "--edge", ""),
        ("user-plane",),
        ("up", "--duration", "1", "--config"),
        ("experiment", "scenario"),
    ):
        assert refused(*command, str(file)) == said, command
    return [line.removeprefix(str(file)) for line in said.splitlines()]


BAD = [
    (
        'links:\n  ran: {address: "tcp://0.0.0.0:5555"}\n  qos: {address: "10.0.0.1:50062"}\n',
        [
            r":2: links\.ran\.address: tcp://0\.0\.0\.0:5555 is not a loopback address and security\.keys",
            r":3: links\.qos\.address: 10\.0\.0\.1:50062 is not a loopback address and security\.keys",
        ],
    ),
    ("links: {edge: {address: 'edge-1:50061'}}", [r":1: links\.edge\.address: edge-1:50061 is not a loop"]),
    ("links: {metrics: {address: '[::]:9464'}}", [r":1: links\.metrics\.address: \[::\]:9464 is not a loop"]),
    (
        "links: {page: {address: '0.0.0.0:50064'}}",
        [r":1: links\.page\.address: 0\.0\.0\.0:50064 is not a loop"],
    ),
    (
        "links:\n  operator: {address: 'localhost:50064'}\n",
        [r":1: links\.page\.address: links\.operator\.address has this port already"],
    ),
    ("links: {ran: {address: 'tcp://*:5555'}}", [r":1: links\.ran\.address: tcp://\*:5555 is not a loop"]),
    (
        "links: {ran: {address: '127.0.0.1:5555'}, qos: {address: 'tcp://127.0.0.1:50062'}}",
        [
            r":1: links\.qos\.address: address 'tcp://127\.0\.0\.1:50062' is not HOST:PORT: no tcp://",
            r":1: links\.ran\.address: address '127\.0\.0\.1:5555' is not tcp://HOST:PORT$",
        ],
    ),
    ("links: {operator: {address: '[::1]'}}", [r":1: links\.operator\.address: .*a port is missing"]),
    ("links: {operator: {address: localhost}}", [r":1: links\.operator\.address: .*a port is missing"]),
    ("links: {qos: {address: '127.0.0.1:65536'}}", [r":1: links\.qos\.address: .*a port is 65535 at most"]),
    (
        "links:\n  qos: {address: 'localhost:50063'}\n",
        [r":1: links\.operator\.address: links\.qos\.address has this port already"],
    ),
    ("", [r": empty; a configuration in which all is as by default is \{\}"]),
    ("# nothing but words\n", [r": empty; "]),
    ("- a\n", [r":1: a configuration is a mapping, not list"]),
    ("words", [r":1: a configuration is a mapping, not str"]),
    ("control:\n\tseed: 1\n", [r":2: found character"]),
    ("control: {seed: 1}\ncontrol: {seed: 2}\n", [r":2: key 'control' twice"]),
    ("links:\n  qos:\n    address: [::1]:50062\n", [r':3: .*wants quotes: "\[::1\]:50062"']),
    (
        SLICES.replace("ul_prb: [10, 90]", "ul_prb: [10, 120]").replace("1600]", "1600, 1800]"),
        [
            r":7: cells\.0\.slices\.0\.actions\.ul_prb: ul_prb 120 is above 106",
            r":9: cells\.0\.slices\.0\.actions\.gpu_mhz: gpu_mhz 1800 is above max_mhz 1600",
        ],
    ),
    (SLICES.replace("prb: 106", "prb: 51"), [r":7: .*ul_prb 90 is above 51", r":8: .*dl_prb 90 is above 51"]),
    (
        SLICES.replace("ul_prb: [10, 90]", "ul_prb: [0, 90]"),
        [r":7: .*ul_prb: must be ascending"],
    ),
    (
        SLICES.replace("ul_prb: [10, 90]", "ul_prb: [9, 9]"),
        [r":7: .*ul_prb: must be ascending"],
    ),
    (SLICES.replace("ul_prb: [10, 90]", "ul_prb: [10.5]"), [r":7: .*actions\.ul_prb\.0: .*integer"]),
    (
        SLICES.replace("ul_prb: [10, 90]", "ul_prb: {from: 1, to: 2000000000, step: 1}"),
        [r":7: .*actions\.ul_prb: .*ends above 100000"],
    ),
    (
        SLICES.replace("- id: a", "- id: a\n        share: {dedicated: 60}").replace(
            "- id: b", "- id: b\n        share: {dedicated: 60}"
        ),
        [r":12: cells\.0\.slices\.1\.share\.dedicated: 120 PRB are dedicated to slices, the carrier has 106"],
    ),
    (
        SLICES.replace("- id: a", "- id: a\n        share: {min: 60}").replace(
            "- id: b", "- id: b\n        share: {dedicated: 50}"
        ),
        [r":12: cells\.0\.slices\.1\.share\.min: 110 PRB are promised to slices as their minimum, .* 106"],
    ),
    (
        SLICES.replace("- id: a", "- id: a\n        share: {dedicated: 60, max: 50}"),
        [r":5: cells\.0\.slices\.0\.share: share: dedicated 60, min 0 and max 50 must not fall"],
    ),
    (
        "cells:\n" + "".join(f"  - id: c{i}\n    slices: [{{id: vr, service: vr}}]\n" for i in range(3)),
        [r":7: cells\.2\.slices\.0\.gpu_share: slices have 1\.5 times the time of the GPU in all"],
    ),
    (  # an unknown policy hides nothing around it, and brings no mistakes of its own
        SLICES.replace("policy: mucb1", "policy: mucb2\n        policy_options: {exploration: 2}", 1)
        .replace("ul_prb: [10, 90]", "ul_prb: [10, 120]")
        .replace("id: b", "id: b\n        service: tv")
        .replace("- id: c", "- id: c\n    arbiter: fair")
        .replace("schedule: always", "schedule: described")
        + "control: {seeed: 1, guard_ms: 7000.0}\nlinks: {ran: {address: '127.0.0.1:5555'}}\n",
        [
            r":3: cells\.0\.arbiter: unknown arbiter 'fair'",
            r":6: cells\.0\.slices\.0\.policy: unknown policy 'mucb2', did you mean 'mucb1'\?; policies: ",
            r":9: cells\.0\.slices\.0\.actions\.ul_prb: ul_prb 120 is above 106",
            r":13: cells\.0\.slices\.1\.service: unknown service 'tv'",
            r":18: emulation\.schedule: schedule described needs on_off",
            r":19: control\.guard_ms: guard_ms 7000 leaves nothing",
            r":19: control\.seeed: unknown key",
            r":20: links\.ran\.address: .*is not tcp://HOST:PORT",
        ],
    ),
    (
        SLICES.replace("- id: a", "- id: a\n        share: {dedicated: 97}"),
        [r":11: cells\.0\.slices\.1: 97 of 106 PRB are dedicated to other slices: .* below 10, the least"],
    ),
    (
        "cells:\n  - id: c\n    slices:\n      - {id: 1, ues: [001010000000001]}\n",
        [
            r":4: .*\.id: Input should be a valid string: write it in quotes \(YAML reads 1\)",
            r":4: .*\.ues\.0: .* valid string: write it in quotes \(YAML reads 69793218561\)",
        ],
    ),
    (
        "cells: c\nlinks: {qos: null}\n",
        [r":1: cells: .* valid list", r":2: links\.qos: .* a mapping of keys"],
    ),
    ("links: {qos: {address: ''}}\n", [r":1: links\.qos\.address: .* at least 1 character \(is ''\)"]),
    (  # what depends on a value that is wrong is no mistake
        SLICES.replace("prb: 106", "prb: 300").replace("ul_prb: [10, 90]", "ul_prb: [10, 200]"),
        [r":14: emulation\.prb: .*less than or equal to 273"],
    ),
]


@pytest.mark.parametrize(("text", "told"), BAD)
def test_all_who_take_a_configuration_tell_all_its_mistakes_in_the_same_words(
    tmp_path: Path, text: str, told: list[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    lines = everywhere(file)
    assert len(lines) == len(told), lines
    for line, pattern in zip(lines, told, strict=True):
        assert re.match(pattern, line), (pattern, line)


EMULATED = [
    ("ues: [ue-9]", "", r": cell 'c': slice 'a' binds UE 'ue-9', which is not emulated: .* there is ue-1"),
    (
        "ues: [ue-1]",
        "channel_trace: /nowhere/drive.csv",
        r": emulation\.channel_trace: /nowhere/drive\.csv: No such file or directory$",
    ),
    (
        "ues: [ue-1]",
        "users: [{application: tv, slice: a}]",
        r": emulation\.users: application 'tv' is none of: .*mar, ",
    ),
    (
        "ues: [ue-1]",
        "users: [{application: video, slice: a, colour: red}]",
        r": emulation\.users: flow 'video-1': video has no option colour; it has ",
    ),
]


@pytest.mark.parametrize(("ues", "users", "told"), EMULATED)
def test_an_emulation_that_cannot_be_is_told_of_before_it_runs(
    ues: str, users: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    text = SLICES.replace("- id: a", f"- id: a\n        {ues}") + (f"  {users}\n" if users else "")
    file.write_text(text)
    said = refused("check-config", str(file))
    assert re.match(told, said.removeprefix(str(file)))
    for command in (
        ("gnb-mock", "--qos", "", "--edge", ""),
        ("up", "--duration", "1", "--config"),
        ("experiment", "scenario"),
    ):
        assert refused(*command, str(file)) == said, command


def test_what_is_no_text_or_no_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"control: {}\ncells: \xff\xfe\n")
    (said,) = everywhere(file)
    assert said.startswith(":2: cannot be read: 'utf-8' codec") and said.endswith("; save it as UTF-8")
    assert everywhere(tmp_path) == [": a folder, not a file"]
    assert "neither a file nor a shipped scenario, did you mean 'mucb1-1'?;" in refused(
        "check-config", "mucb-1"
    )


def test_the_check_ends_with_1_and_a_good_file_with_0(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text("control: {x: 1}")
    good.write_text(SLICES)

    def ended(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "controller.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    said = f"prbandit: {bad}:1: control.x: unknown key\n"
    assert ended("check-config", str(bad)) == ended("controller", str(bad)) == (1, said)
    assert ended("check-config", str(good)) == (0, "")
    assert ended("check-config", "{}")[0] == 1


def test_a_carrier_that_the_file_does_not_tell_is_an_option(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SLICES[: SLICES.index("emulation")])
    assert CliRunner().invoke(cli, ["check-config", str(file)]).exit_code == 0
    assert "ul_prb 90 is above 51" in refused("check-config", str(file), "--prb", "51")


def test_the_key_files_of_the_controller_are_looked_at(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'prbandit[keys]'")
    from wire import keys

    folder, file = tmp_path / "keys", tmp_path / "c.yaml"
    file.write_text(f"security:\n  keys: {folder}\ncells: [{{id: c}}, {{id: d}}]\n")
    for command in (("check-config",), ("controller", "--no-record")):
        assert f"{file}:2: security.keys: there is no folder {folder} (`prbandit" in refused(
            *command, str(file)
        )
    keys.create(folder, cells=["c", "d"])
    assert CliRunner().invoke(cli, ["check-config", str(file)]).exit_code == 0
    shutil.copy(folder / "ca.crt", folder / "controller.crt")
    (folder / "controller.key").chmod(0o644)
    (folder / "curve" / "cells" / "d.pub").unlink()
    said = refused("check-config", str(file))
    assert said == refused("controller", "--no-record", str(file))
    for part in ("are not a certificate and its key", "d.pub is missing", "read by everybody"):
        assert part in said
    assert len(said.splitlines()) == 3 and "PRIVATE" not in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gnb-mock", "demo", "--ran", "[::1]:5555"), "--ran: address '[::1]:5555' is not tcp://HOST:PORT"),
        (("user-plane", "demo", "--ran", "localhost:5555"), "--ran: address 'localhost:5555' is not tcp://"),
        (("gnb-mock", "demo", "--qos", "[::1]"), "--qos: address '[::1]' is not HOST:PORT: a port is"),
        (
            ("gnb-mock", "demo", "--edge", "0.0.0.0:1"),
            "--edge: 0.0.0.0:1 is not a loopback address and",
        ),
        (("edge-agent", "--address", "*:50061"), "--address: address '*:50061' is not HOST:PORT; 0.0.0.0 is"),
        (
            ("edge-agent", "--metrics", "[::]:9"),
            "--metrics: [::]:9 is not a loopback address and",
        ),
        (
            ("edge-agent", "--address", "[::1]:50061", "--metrics", "[::1]:50061"),
            "--metrics: --address has this port already",
        ),
        (("edge-agent", "--keys", "/nowhere"), "--keys: there is no folder /nowhere"),
        (
            ("ptp-agent", "--host", "h", "--cell", "c", "--qos", "[::1]"),
            "--qos: address '[::1]' is not HOST:PORT",
        ),
        (
            ("controller", "demo", "--set", "links.ran.address=[::1]:5555"),
            "links.ran.address: a",
        ),
        (
            ("check-config", "demo", "--set", "links.qos.address=[::]:1"),
            "links.qos.address: [",
        ),
    ],
)
def test_options_of_the_command_line_go_through_the_same_check(arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(*arguments)


def test_a_value_that_is_set_beside_the_file_is_not_looked_for_in_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("control:\n  seed: 1\n  x: 1\n")
    said = refused("check-config", str(file), "--set", "control.seed=one")
    assert said == (
        f"{file}: control.seed: Input should be a valid integer (is 'one') (overrides the file)\n"
        f"{file}:3: control.x: unknown key"
    )


def test_options_and_file_are_told_of_together(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("control: {x: 1}")
    said = refused("gnb-mock", str(file), "--ran", "[::1]:5555", "--qos", "h:1", "--keys", "/nowhere")
    assert [line.partition(": ")[0] for line in said.splitlines()] == [f"{file}:1", "--ran", "--keys"]


@pytest.mark.parametrize("host", ["[::1]", "localhost", "127.0.0.2"])
def test_every_spelling_of_loopback_is_taken(host: str) -> None:
    text = f"links: {{ran: {{address: 'tcp://{host}:1'}}, qos: {{address: '{host}:2'}}}}"
    assert config.parse(text).links.qos.address == f"{host}:2"


def test_a_reload_says_what_check_config_says_of_the_gnb_s_carrier(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    good = SLICES[: SLICES.index("emulation")]
    file.write_text(good)
    loaded = config.load(file)
    cell = ControlledCell("c", loaded, Journal(store=Memory(), time_ns=lambda: T0), Face())
    cell.joined(1, CARRIER, T0)
    commands = Direct(
        loaded,
        {"c": cell},
        cell.journal,
        state=lambda: ControllerStatus("", "", 1.0),
        end_slot=lambda _: None,
        taken_over=lambda _: None,
        alive=lambda: True,
        shut_down=lambda: None,
        reloaded=lambda _: None,
        rekeyed=lambda _: None,
        config_path=file,
    )
    for text in (good.replace("ul_prb: [10, 90]", "ul_prb: [10, 120]"), "", good + "control: {x: 1}\n"):
        file.write_text(text)
        with pytest.raises(ValueError) as error:
            commands.reload()
        said = refused("check-config", str(file), "--prb", str(CARRIER.n_prb))
        assert str(error.value) == f"the configuration stays as it was:\n{said}"
    file.write_text(good)
    assert commands.reload() == "reloaded; changed: nothing"
    assert cell.controlled


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ("{id: a, share: {max: 4}}", "slices.0.share.max: max 4 is below 5, the smallest grant of the gNB"),
        (
            "{id: a, share: {max: 20}, actions: {ul_prb: [10, 40], dl_prb: [30, 40]}}",
            "slices.0.share.max: max 20 is below 30, the least of the slice's actions",
        ),
        ("{id: a, actions: {ul_prb: [4, 40]}}", "ul_prb 4 is below 5, the smallest grant of the gNB"),
    ],
)
def test_a_slice_that_could_be_given_nothing_is_refused(slices: str, says: str) -> None:
    text = f"cells: [{{id: c, slices: [{slices}]}}]\nemulation: {{duration_s: 60.0, schedule: always}}\n"
    with pytest.raises(config.ConfigError, match=re.escape(says)):
        config.parse(text)
