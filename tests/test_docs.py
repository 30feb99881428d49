"""What README and docs/ tell people to type and to write, and whether what is generated for them is whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from controller import allocators, config, reference
from controller.cli import cli
from controller.journal import Event

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "oai_patches/README.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAM = re.compile(r"^(?:\$ )?(?:\S+/bin/)?prbandit(?= |$)")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block, and of every indented one as a shell's."""
    for language, block in re.findall(r"^```([\w{} ]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield language, block
    apart = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^ {4,}\S.*\n)+", apart, re.MULTILINE):
        yield "sh", re.sub(r"^ {4}", "", block, flags=re.MULTILINE)


def commands(text: str) -> Iterator[str]:
    """What follows ``prbandit`` on every line of a shell's block that begins with it."""
    for language, block in blocks(text):
        if language in ("", "sh", "console", "text"):
            for line in block.replace("\\\n", " ").splitlines():
                if found := PROGRAM.match(line):
                    yield line[found.end() :].strip()


def wrong(line: str) -> str:
    """What of a command line the command tree does not have; "" where it has all of it.

    Words in capitals stand for others, ``[...]`` may be left out, ``a | b`` is one or the other.
    """
    words = re.split(r"\s+#", line)[0].replace("[", " ").replace("]", " ")
    for alternative in words.split(" | ")[1:]:
        if cli.get_command(click.Context(cli), alternative.split()[0]) is None:
            return f"no command {alternative.split()[0]!r}"
    context, rest = click.Context(cli), shlex.split(words.split(" | ")[0])
    while rest:
        command, word = context.command, rest.pop(0)
        if word in ("--", ">", "..."):
            return ""
        if word.startswith("-"):
            options = {o: p for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)}
            name, _, value = word.partition("=")
            if name not in options:
                return f"{command.name} has no option {name}"
            option = options[name]
            if not value and isinstance(option, click.Option) and not (option.is_flag or option.count):
                rest = rest[1:]
        elif isinstance(command, click.Group):
            if command.name == "experiment" and word not in command.list_commands(context):
                word, rest = "scenario", [word, *rest]
            if word.isupper():
                return ""
            try:
                name, found, rest = command.resolve_command(context, [word, *rest])
            except click.UsageError as error:
                return error.message
            assert found is not None
            context = click.Context(found, parent=context, info_name=name)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_that_is_shown_is_there_with_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`(?:\S+/bin/)?prbandit ([a-z][^`]*)`", " ".join(text.split()))
    faults = [f"prbandit {line}: {why}" for line in (*commands(text), *inline) if (why := wrong(line))]
    assert not faults


def test_a_command_and_an_option_that_are_not_there_are_found() -> None:
    assert (
        wrong("statuss") and wrong("status --jsonn") and wrong("openrtist serve") and wrong("watch | modee")
    )
    assert not wrong("openrtist server --style X  # --none") and not wrong("check-config FILE [--prb N]")
    assert [
        *commands("    prbandit status\n\ntext\n```sh\n$ .venv/bin/prbandit watch \\\n  --json\n```\n")
    ] == [
        "watch    --json",
        "status",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_configuration_that_is_shown_is_one(page: Path) -> None:
    for language, block in blocks(page.read_text(encoding="utf-8")):
        if language == "yaml":
            config.parse(block, page.name)


def keys(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, found in schema["properties"].items():
        yield f"{path}.{name}", found
    for name, model in schema.get("$defs", {}).items():
        for key, found in model["properties"].items():
            yield f"{path}.{name}.{key}", found


def test_every_key_that_takes_a_value_says_what_it_means() -> None:
    schemas = {"config": config.Config.model_json_schema()}
    for name in ("ar", "mar", "urllc", "video", "vr"):
        schemas[name] = allocators.service(name).options.model_json_schema()
    silent = [
        key
        for name, schema in schemas.items()
        for key, found in keys(schema, name)
        if "description" not in found and "$ref" not in str(found)
    ]
    assert not silent


def test_the_reference_has_every_key_once_with_its_default() -> None:
    text = reference.markdown()
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    assert re.search(r"^\| `control_slot_s` \| number from 0.2 to 600 \| `5.0` \| s \| restart ", text, re.M)
    assert '| `address` | text, or null | `"127.0.0.1:50063"` |' in sections["`links.operator`"]
    assert re.search(r"^\| `policy` \|.*\| live, learns anew \|", sections["Options of service `ar`"], re.M)
    assert "`qos_target` (`0.98`)" in sections["Options of policies"]
    for heading, section in sections.items():
        rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert len(rows) == len(set(rows)), heading
    shown = sum(len(re.findall(r"^\| `", section, re.MULTILINE)) for section in sections.values())
    assert shown > 140


def test_every_event_is_explained() -> None:
    text = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    assert not [event.value for event in Event if f"`{event.value}`" not in text]
