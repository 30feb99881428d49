"""``oai check``: is this OpenAirInterface tree one that the module in ``oai_patches/glue`` can ride in?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    """One tree against the row of the table that fits it, or else comes nearest."""

    version: str
    commit: str
    known: bool
    needs: int
    missing: list[str]

    @property
    def supported(self) -> bool:
        return self.known and not self.missing


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


def missing_in(row: dict[str, Any], read: Reader) -> tuple[int, list[str]]:
    """(how much the row asks for, what of it the tree lacks)."""
    texts: dict[str, str | None] = {}

    def text_of(path: str) -> str | None:
        if path not in texts:
            text = read(path)
            texts[path] = None if text is None else without_comments(text)
        return texts[path]

    needs, missing = 0, []
    for struct in row["structs"]:
        needs += len(struct["fields"])
        text = text_of(struct["file"])
        body = None if text is None else struct_body(text, struct["name"])
        if text is None:
            missing.append(f"{struct['file']}: no such file (structure {struct['name']})")
        elif body is None:
            missing.append(f"{struct['file']}: structure {struct['name']}")
        else:
            missing += [
                f"{struct['file']}: field {struct['name']}.{field}"
                for field in struct["fields"]
                if not has_field(body, field)
            ]
    for function in row["functions"]:
        needs += 1
        text = text_of(function["file"])
        if text is None or not re.search(rf"\b{re.escape(function['name'])}\s*\(", text):
            missing.append(f"{function['file']}: function {function['name']}()")
    for needed in row["texts"]:
        needs += 1
        text = text_of(needed["file"])
        if text is None or not re.search(needed["pattern"], text):
            missing.append(f"{needed['file']}: {needed['what']}")
    return needs, missing


def judge(read: Reader, table: dict[str, Any]) -> Verdict:
    """The row whose text is in its file; where there is none, the row that lacks least."""
    verdicts = []
    for row in table["versions"]:
        needs, missing = missing_in(row, read)
        marker = row["tell"]
        known = marker["text"] in (read(marker["file"]) or "")
        verdicts.append(Verdict(row["name"], row["commit"], known, needs, missing))
    return min(verdicts, key=lambda verdict: (not verdict.known, len(verdict.missing)))


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
    verdict = judge(read, load_table())
    emit(
        {"path": str(path), "rev": rev, "supported": verdict.supported, **asdict(verdict)},
        as_json,
        _text(verdict),
    )
    if not verdict.supported:
        sys.exit(1)


def _text(verdict: Verdict) -> str:
    row = f"{verdict.version}, {verdict.commit}"
    found = f"{verdict.needs - len(verdict.missing)} of {verdict.needs} names found"
    if verdict.supported:
        return f"supported: as version {row}; {found}"
    kind = "like version" if verdict.known else "no version that is known; nearest is"
    names = verdict.missing or ["nothing by name, but its list of UEs is called something else"]
    return "\n".join([f"NOT supported: {kind} {row}; {found}; missing:", *(f"  {name}" for name in names)])
