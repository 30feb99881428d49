"""``oai check``: is this OpenAirInterface tree one that the module in ``oai_patches/glue`` can ride in?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option

TABLE = Path(__file__).parents[2] / "oai_patches" / "glue" / "versions.json"
"""What the glue needs, a row for each version of OAI. The glue's CMakeLists.txt reads the same file."""

Reader = Callable[[str], str | None]
"""A path in the tree -> its text, or None where there is no such file."""


@dataclass(frozen=True)
class Verdict:
    """One tree against one row of the table: ``lacking`` of ``needs`` names are absent, see ``missing``."""

    version: str
    commit: str
    scheduler: str
    source: str
    tell: str
    known: bool
    needs: int
    lacking: int
    missing: list[str]

    @property
    def supported(self) -> bool:
        return self.known and not self.missing


@dataclass(frozen=True)
class Divider:
    """Something of OAI's own in this tree that divides PRBs, and what our ``module`` does about it."""

    who: str
    file: str
    module: str


@dataclass(frozen=True)
class Check:
    """One tree against the whole table.

    ``nearest`` is the row that the glue would be built by, or where none fits the one to compare with;
    ``scheduler`` is the kind that the tree itself has, None where it has none that is known.
    """

    nearest: Verdict
    others: list[Verdict]
    scheduler: str | None
    scheduler_what: str
    dividers: list[Divider]


def tree_reader(root: Path) -> Reader:
    """Reads a working tree."""

    def read(path: str) -> str | None:
        file = root / path
        return file.read_text(errors="replace") if file.is_file() else None

    return read


def git_reader(repository: Path, rev: str) -> Reader:
    """Reads one commit of a repository, bare or not, without a working tree.

    Raises:
        click.ClickException: git is not installed, or knows no such commit.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(repository), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, errors="replace")
        except FileNotFoundError:
            raise click.ClickException("--rev: git is not installed") from None

    found = git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    if found.returncode != 0:
        why = found.stderr.strip() or "no such commit"
        raise click.ClickException(f"--rev {rev}: {repository}: {why}")
    commit = found.stdout.strip()

    def read(path: str) -> str | None:
        shown = git("show", f"{commit}:{path}")
        return shown.stdout if shown.returncode == 0 else None

    return read


def without_comments(text: str) -> str:
    """C without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)


def struct_body(text: str, name: str) -> str | None:
    """What stands between the braces of a structure, named by its typedef or its tag.

    >>> struct_body("typedef struct s { int a; struct { int b; } c; } s_t;", "s_t").split()
    ['int', 'a;', 'struct', '{', 'int', 'b;', '}', 'c;']
    """
    alias = re.search(rf"typedef\s+struct\s+(\w+)\s+{re.escape(name)}\s*;", text)
    tag = alias.group(1) if alias else name
    opened = re.search(rf"\bstruct\s+{re.escape(tag)}\s*\{{", text)
    if opened:
        depth, start = 1, opened.end()
        for at in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[start:at]
        return None
    closed = re.search(rf"\}}\s*(?:__attribute__\s*\(\(\w+\)\)\s*)?{re.escape(name)}\s*;", text)
    if closed is None:
        return None
    depth, end = 1, closed.start()
    for at in range(end - 1, -1, -1):
        depth += {"}": 1, "{": -1}.get(text[at], 0)
        if depth == 0:
            return text[at + 1 : end]
    return None


def has_field(body: str, field: str) -> bool:
    """A member of this name is declared: ``field;``, ``*field``, ``field[n];``, ``a, field;``."""
    return re.search(rf"[\s*,]{re.escape(field)}\s*(\[[^\]]*\]\s*)*[;,]", " " + body) is not None


def holders(text: str, field: str) -> list[str]:
    """Structures of the text, by the names that their typedefs give them, with a member of this name.

    >>> holders("typedef struct { int a; struct { int b; } in; } s_t; typedef struct { int b; } t_t;", "b")
    ['s_t', 't_t']
    """
    names = []
    for closed in re.finditer(r"\}\s*(?:__attribute__\s*\(\(\w+\)\)\s*)?(\w+)\s*;", text):
        if text.count("{", 0, closed.end()) != text.count("}", 0, closed.end()):
            continue
        body = struct_body(text, closed.group(1))
        if body is not None and has_field(body, field):
            names.append(closed.group(1))
    return names


def lacks(row: dict[str, Any], text_of: Reader) -> Iterator[tuple[int, str]]:
    """(how many names, which) for each thing that the row asks for and the tree lacks.

    ``text_of`` gives the files without their comments. What is there under another structure or in another
    file is said in brackets.
    """
    files = {struct["file"] for struct in row["structs"]}
    for struct in row["structs"]:
        name, file, fields = struct["name"], struct["file"], struct["fields"]
        text = text_of(file)
        body = None if text is None else struct_body(text, name)
        if text is None:
            yield len(fields), f"{file}: no such file (structure {name})"
        elif body is None:
            now = [other for other in sorted(files) if struct_body(text_of(other) or "", name) is not None]
            yield len(fields), f"{file}: structure {name}" + (f" (now in {now[0]})" if now else "")
        else:
            for field in fields:
                if not has_field(body, field):
                    now = holders(text, field)[:3]
                    hint = f" (there is one in {', '.join(now)})" if now else ""
                    yield 1, f"{file}: field {name}.{field}{hint}"
    for function in row["functions"]:
        text = text_of(function["file"])
        if text is None:
            yield 1, f"{function['file']}: no such file (function {function['name']}())"
        elif not re.search(rf"\b{re.escape(function['name'])}\s*\(", text):
            yield 1, f"{function['file']}: function {function['name']}()"
    for needed in row["texts"]:
        text = text_of(needed["file"])
        if text is None:
            yield 1, f"{needed['file']}: no such file ({needed['what']})"
        elif not re.search(needed["pattern"], text):
            yield 1, f"{needed['file']}: {needed['what']}"


def source_of(scheduler: str) -> str:
    """The glue's source for a kind of scheduler, called after it; CMakeLists.txt makes the same name.

    >>> source_of("pre-processor")
    'src/pre_processor.c'
    """
    return f"src/{scheduler.replace('-', '_')}.c"


def judge(read: Reader, table: dict[str, Any]) -> Check:
    """The first row whose tell is in its file, as CMake chooses; else the nearest of the tree's own kind."""
    read = cache(read)

    @cache
    def text_of(path: str) -> str | None:
        text = read(path)
        return None if text is None else without_comments(text)

    def is_at(places: list[dict[str, str]]) -> str | None:
        return next((at["file"] for at in places if at["text"] in (text_of(at["file"]) or "")), None)

    kind = next((kind for kind in table["schedulers"] if is_at(kind["at"])), None)

    def against(row: dict[str, Any]) -> Verdict:
        found = list(lacks(row, text_of))
        needs = sum(len(struct["fields"]) for struct in row["structs"])
        tell = row["tell"]
        return Verdict(
            version=row["name"],
            commit=row["commit"],
            scheduler=row["scheduler"],
            source=source_of(row["scheduler"]),
            tell=f"{tell['text']} in {tell['file']}",
            known=tell["text"] in (read(tell["file"]) or ""),
            needs=needs + len(row["functions"]) + len(row["texts"]),
            lacking=sum(names for names, _ in found),
            missing=[which for _, which in found],
        )

    verdicts = [against(row) for row in table["versions"]]
    own = None if kind is None else kind["name"]
    nearest = next((verdict for verdict in verdicts if verdict.known), None) or min(
        verdicts, key=lambda verdict: (verdict.scheduler != own, verdict.lacking / verdict.needs)
    )
    dividers = [
        Divider(who=divider["who"], file=file, module=divider["module"])
        for divider in table["dividers"]
        if (file := is_at(divider["at"]))
    ]
    others = [verdict for verdict in verdicts if verdict is not nearest]
    return Check(nearest, others, own, "" if kind is None else kind["what"], dividers)


def load_table(path: Path = TABLE) -> dict[str, Any]:
    """The table of versions.

    Raises:
        click.ClickException: it is not there, as in an installation without the source tree.
    """
    if not path.is_file():
        raise click.ClickException(f"{path} is missing: run this from PRBandit's source tree")
    table = json.loads(path.read_text())
    assert isinstance(table, dict)
    return table


@click.group("oai")
def oai() -> None:
    """OpenAirInterface: what a gNB's source tree must have for PRBandit's module."""


@oai.command("check")
@click.argument("path", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rev", help="Look at this commit of the repository in PATH, which may be bare.")
@json_option
def check(path: Path, rev: str | None, as_json: bool) -> None:
    """Tell whether the OAI tree in PATH is supported, and by name what it lacks; exit status 1 if not."""
    read = git_reader(path, rev) if rev else tree_reader(path)
    if read("openair2/LAYER2/NR_MAC_gNB/nr_mac_gNB.h") is None:
        hint = "" if rev else "; give a bare repository's commit with --rev"
        raise click.ClickException(
            f"{path}: no openair2/LAYER2/NR_MAC_gNB/nr_mac_gNB.h, so no OpenAirInterface tree{hint}"
        )
    found = judge(read, load_table())
    emit(
        {
            "path": str(path),
            "rev": rev,
            "supported": found.nearest.supported,
            **asdict(found.nearest),
            "tree_scheduler": found.scheduler,
            "others": [asdict(other) for other in found.others],
            "dividers": [asdict(divider) for divider in found.dividers],
        },
        as_json,
        _text(found),
    )
    if not found.nearest.supported:
        sys.exit(1)


def _text(found: Check) -> str:
    row = found.nearest
    version = f"{row.version}, {row.commit}; {row.needs - row.lacking} of {row.needs} names found"
    kind = f"{found.scheduler} ({found.scheduler_what})" if found.scheduler else "none that is known"
    if row.supported:
        lines = [
            f"supported: as version {version}",
            f"scheduler of this tree: {kind}; the glue is built with oai_patches/glue/{row.source}",
        ]
    else:
        fits = "like version" if row.known else "no version fits; nearest is"
        tell = [] if row.known else [f"what tells this version from others: {row.tell}"]
        lines = [
            f"NOT supported: {fits} {version}",
            f"scheduler of this tree: {kind}",
            "missing:",
            *(f"  {name}" for name in [*row.missing, *tell]),
        ]
    lines += [
        f"{other.version} ({other.scheduler}): {other.lacking} of {other.needs} names missing"
        for other in found.others
    ]
    lines += [
        f"note: OAI divides PRBs here itself: {divider.who}, in {divider.file}. {divider.module}"
        for divider in found.dividers
    ]
    return "\n".join(lines)
