"""No page and no message installs a package of ours by its name, which is a stranger's or free.

They install from a checkout or from files: `docs/index.md`, `dora_config.installation`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.sources import PACKAGES, ROOT, Source, packaged_sources, tracked_files

from dora_ros2 import transport
from dora_ui.viewers import foxglove, rerun_node

_INSTALLS = re.compile(
    r"(?:pip3? (?:install|download)|uv add|uvx|(?:uv tool|pipx) (?:install|run|upgrade))"
    r" ([^`\n]*)"
)
_OURS = re.compile(rf"(?<![\w/.{{,-])(?:{'|'.join(PACKAGES)})(?![\w/-])")
_TEXTS = {".md", ".txt", ".yml", ".yaml"}


def by_name(text: str) -> list[str]:
    """Return the commands of a text that install a package of ours by its name."""
    return [found[0].strip() for found in _INSTALLS.finditer(text) if _OURS.search(found[1])]


@pytest.mark.parametrize(
    "line",
    [
        "pip install dora-cli",
        "`pip install 'dora-daemon[lerobot]'`",
        "uv add dora-node-api",
        "pip download dora-cli --dest wheels",
        "uv tool install dora-cli",
        "uv tool install packages/dora-config --with dora-cli",
    ],
)
def test_names_of_ours_are_found(line: str) -> None:
    assert by_name(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install packages/dora-{config,node-api,cli}",
        "pip install packages/*",
        "pip install -e packages/dora-config -e packages/dora-cli",
        "pip install wheels/dora_*.whl",
        "pip uninstall dora-cli",
        "pip install dora-echo",
    ],
)
def test_folders_files_and_other_packages_are_allowed(line: str) -> None:
    assert not by_name(line)


def _pages() -> list[Path]:
    return [
        path
        for path in tracked_files()
        if path.suffix in _TEXTS and "tests" not in path.relative_to(ROOT).parts
    ]


@pytest.mark.parametrize("page", _pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages(page: Path) -> None:
    assert not by_name(page.read_text(encoding="utf-8"))


def _messages(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(one.value) if isinstance(one, ast.Constant) else f"{{{ast.unparse(one)}}}"
                for one in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


_COMPUTED = re.compile(r"(?:pip install|uv add) (?:-\S+ )*\"?\{.*?\}")
_LIBRARIES = re.compile(r"\b(?:LIBRARY|LIBRARIES|CYCLONE|library)\b")
"""Constants that a test below compares with the packages, and a name that is none of ours."""


def test_messages() -> None:
    wrong = [
        f"{source.name}: {line}"
        for source in packaged_sources()
        for text in _messages(source)
        for line in [
            *by_name(text),
            *(line for line in _COMPUTED.findall(text) if not _LIBRARIES.search(line)),
        ]
    ]
    assert not wrong, "\n".join(wrong)


def _extra(name: str, extra: str) -> set[str]:
    file = ROOT / "packages" / name / "pyproject.toml"
    lines = tomllib.loads(file.read_text())["project"]["optional-dependencies"][extra]
    return {str(Requirement(line)) for line in lines if Requirement(line).name not in PACKAGES}


def test_libraries_in_messages_are_those_of_the_extras() -> None:
    """Where the metadata of the wheel cannot be read, because the node may run without it."""
    assert {rerun_node.LIBRARY} == _extra("dora-ui", "rerun")
    assert {one.strip('"') for one in foxglove.LIBRARIES} == _extra("dora-ui", "foxglove")
    assert {transport.CYCLONE} == _extra("dora-ros2", "dds")


LIBRARIES = re.compile(r'pip install ((?:"[\w.-]+[>=~][^"`]*" ?)+)')


def test_libraries_on_pages_are_those_of_the_packages() -> None:
    projects = [
        tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())["project"]
        for name in PACKAGES
    ]
    known = {
        str(Requirement(line))
        for project in projects
        for lines in project.get("optional-dependencies", {}).values()
        for line in lines
    }
    named = {
        requirement
        for page in _pages()
        for line in LIBRARIES.findall(page.read_text(encoding="utf-8"))
        for requirement in re.findall(r'"([^"]+)"', line)
    }
    assert named
    assert named <= known
