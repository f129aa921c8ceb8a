"""What the documentation shows is true: its files are written, its commands run, its code parsed.

A fenced block with a ``title`` becomes a file of that name. In a ``console`` block each line that
starts with ``$ `` is a command: ``dora`` commands are run (others only show), and what is written
below must be what was printed; ``...`` stands for anything. A last line ``(exit code N)`` says
how the command ends, 0 if it is not there. One page is one folder, from top to bottom.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.coordinator import free_port
from support.dora import run_dora
from support.sources import ROOT, packaged_sources
from support.workspace import Workspace

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    body: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["options"])
        yield Block(
            language=match["language"],
            title=title[1] if title else None,
            body=textwrap.dedent(match["body"]),
            line=text.count("\n", 0, match.start()) + 1,
        )


@dataclass(frozen=True)
class Command:
    """A command of a console block and what it is said to print."""

    words: list[str]
    expected: str
    code: int

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expected text as a pattern: ``...`` matches anything, blanks match any blanks."""
        parts = (
            r"\s+".join(map(re.escape, part.split())) for part in re.split(r"\.\.\.", self.expected)
        )
        return re.compile(r"[\s\S]*?".join(parts))


def commands(block: Block) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        ending = re.search(r"^\(exit code (\d+)\)$", rest, re.MULTILINE)
        expected = re.sub(r"^\(exit code \d+\)$", "", rest, flags=re.MULTILINE)
        words = shlex.split(first, comments=True)
        yield Command(words, expected.strip(), int(ending[1]) if ending else 0)


def _runs_something(page: Path) -> bool:
    return any(
        command.words[0] == "dora"
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block)
    )


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.integration
@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", [page for page in PAGES if _runs_something(page)], ids=_name)
def test_commands_print_what_is_written(
    page: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(free_port()))
    for block in blocks(page):
        if block.title is not None:
            workspace.file(block.title, block.body)
        elif block.language == "console":
            for command in commands(block):
                if command.words[0] != "dora":
                    continue
                done = run_dora(*command.words[1:], cwd=workspace.path, timeout=90)
                where = f"{_name(page)}:{block.line}"
                assert done.code == command.code, f"{where}: exit code {done.code}\n{done}"
                assert command.pattern.search(done.output), (
                    f"{where}: expected\n{command.expected}\n{done}"
                )


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_code_is_valid(page: Path) -> None:
    for block in blocks(page):
        if page.name == "errors.md" and block.language == "yaml":
            continue  # each of these is wrong, that is what the page is about
        where = f"{_name(page)}:{block.line}"
        try:
            if block.language == "python":
                ast.parse(block.body)
            elif block.language in {"yaml", "yml"}:
                yaml.safe_load(block.body)
        except (SyntaxError, yaml.YAMLError) as error:
            pytest.fail(f"{where}: {error}")


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        target
        for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = [
        block.body.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"
    ]
    assert len(commands) == 2, "one command to see it work, one to run the tests"
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()


OVERVIEWS = [ROOT / "ARCHITECTURE.md", *(ROOT / "docs/explanation").glob("*.md")]


@pytest.mark.parametrize("page", OVERVIEWS, ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text()))
    known = [source.name for source in packaged_sources()]
    nodes = {"camera.py", "plot.py"}
    unknown = {
        name for name in named - nodes if not any(path.endswith(f"/{name}") for path in known)
    }
    assert not unknown
