"""Runs the commands of the documentation and parses its code.

A fenced block with a ``title`` becomes a file of that name. The commands of ``console`` blocks run
as in ``support.console``, all those of a page in one folder and with what the page installs.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.console import Console, commands
from support.fleets.coordinator import free_port
from support.installed import base, installed_by, make_environment
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


def _runs_something(page: Path) -> bool:
    return any(
        command.is_run
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block.body)
    )


def own_environment(page: Path, folder: Path) -> Path:
    """Return the Python of an environment for a page that installs a package of its own."""
    return make_environment(folder / ".venv", base() | installed_by(page.read_text()))


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return a function from a page to the Python that has exactly what the page installs."""
    made: dict[frozenset[str], Path] = {}

    def environment(page: Path) -> Path:
        requirements = base() | installed_by(page.read_text())
        if requirements not in made:
            made[requirements] = make_environment(tmp_path_factory.mktemp("env"), requirements)
        return made[requirements]

    return environment


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in PAGES if _runs_something(page)], ids=_name)
def test_output_of_commands(
    page: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    environments: Callable[[Path], Path],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("UV_OFFLINE", "1")
    port = free_port()
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(port))
    found = list(blocks(page))
    with Console(workspace.path, port) as console:
        if any(block.title == "pyproject.toml" for block in found):
            console.python = own_environment(page, workspace.path)
        else:
            console.python = environments(page)
        monkeypatch.setenv("PATH", f"{console.python.parent}:/usr/bin:/bin")
        for block in found:
            if block.title is not None:
                workspace.file(block.title, block.body)
            elif block.language == "console":
                for command in commands(block.body):
                    if command.is_run:
                        where = f"{_name(page)}:{block.line}: $ {' '.join(command.words)}"
                        console.run(command, where)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_installs_what_its_code_imports(
    page: Path, environments: Callable[[Path], Path]
) -> None:
    found = list(blocks(page))
    files = [Path(block.title).with_suffix("") for block in found if block.title]
    own = {part for file in files for part in file.parts}
    imported = {
        name
        for block in found
        if block.language == "python"
        for name in _imported(block.body)
        if name not in own
    }
    if imported:
        done = subprocess.run(
            [environments(page), "-c", CHECK, *sorted(imported)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == []


CHECK = """
import json, sys
from importlib.util import find_spec
print(json.dumps([name for name in sys.argv[1:] if find_spec(name) is None]))
"""


def _imported(text: str) -> Iterator[str]:
    """Yield the names of the packages that code imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("page", [page for page in PAGES if _runs_something(page)], ids=_name)
def test_a_page_removes_what_it_has_started(page: Path) -> None:
    """A daemon or dataflow that stays disturbs the next page for a day."""
    words = [
        command.words[1:]
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block.body)
        if command.words[0] == "dora"
    ]
    starts = [
        at for at, one in enumerate(words) if one[:1] in (["up"], ["daemon"], ["coordinator"])
    ]
    ends = [at for at, one in enumerate(words) if one[:1] == ["down"]]
    assert not starts or (ends and ends[-1] > starts[-1])


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_code_is_valid(page: Path) -> None:
    for block in blocks(page):
        if page.name == "errors.md" and block.language == "yaml":
            continue  # examples of invalid files
        where = f"{_name(page)}:{block.line}"
        try:
            if block.language == "python":
                ast.parse(block.body)
            elif block.language in {"yaml", "yml"}:
                yaml.safe_load(block.body)
        except (SyntaxError, yaml.YAMLError) as error:
            pytest.fail(f"{where}: {error}")


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=_name)
def test_link_targets_exist(page: Path) -> None:
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
    assert len(commands) == 2, "the demo and the tests"
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()


OVERVIEWS = [ROOT / "ARCHITECTURE.md", *(ROOT / "docs/explanation").glob("*.md")]


@pytest.mark.parametrize("page", OVERVIEWS, ids=_name)
def test_named_files_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text()))
    known = [source.name for source in packaged_sources()]
    nodes = {"camera.py", "plot.py", "platform.py"}
    unknown = {
        name
        for name in named - nodes
        if not (ROOT / name).is_file() and not any(path.endswith(f"/{name}") for path in known)
    }
    assert not unknown
