"""Versions, requirements and files of the packages; no traces of one machine."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from support.sources import PACKAGES, ROOT, tracked_files

NAMES = sorted(PACKAGES)


def _project(name: str) -> dict[str, Any]:
    text = (ROOT / "packages" / name / "pyproject.toml").read_text()
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _version(name: str) -> str:
    if not PACKAGES[name]:
        return str(_project(name)["version"])
    (source,) = (ROOT / "packages" / name / "src").glob("*/_version.py")
    match = re.search(r'^__version__ = "([^"]+)"$', source.read_text(), re.MULTILINE)
    assert match, f"{source} has no version"
    return match[1]


def test_one_version() -> None:
    assert len({_version(name) for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_requirements(name: str) -> None:
    """Our own packages are pinned; all others have a lower bound."""
    for text in _project(name)["dependencies"]:
        requirement = Requirement(text)
        operators = {specifier.operator for specifier in requirement.specifier}
        if requirement.name in PACKAGES:
            assert str(requirement.specifier) == f"=={_version(name)}", text
        else:
            assert operators & {">=", "~="}, f"{name}: {text} has no lower bound"


def test_mypy_reads_the_sources_of_each_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    sources = {f"packages/{name}/src" for name in NAMES if PACKAGES[name]}
    assert sources <= set(settings["mypy_path"])


@pytest.mark.parametrize("name", NAMES)
def test_package_files(name: str) -> None:
    folder = ROOT / "packages" / name
    project = _project(name)
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0"
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (folder / "README.md").read_text().startswith(f"# {project['name']}\n")
    for package in PACKAGES[name]:
        assert (folder / "src" / package / "py.typed").is_file()


HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
UNRELEASED = "Unreleased"


def test_changelog_headings() -> None:
    """The newest heading is the version of the packages or "Unreleased"."""
    newest, *older = HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    assert newest in {_version("dora-cli"), UNRELEASED}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in older)


def test_releasing_names_the_headings_of_the_changelog() -> None:
    named = re.findall(r"`## (\S+)`", (ROOT / "RELEASING.md").read_text())
    assert named[0] == UNRELEASED
    assert re.fullmatch(r"\d+\.\d+\.\d+", named[1])
    assert f"`## {UNRELEASED}`" in (ROOT / "CHANGELOG.md").read_text()


def test_changelog_entries() -> None:
    """An entry starts with its wheels; the entries of one release fit on two screens."""
    releases = HEADING.split((ROOT / "CHANGELOG.md").read_text())[2::2]
    for release in releases:
        assert len(release.strip().splitlines()) <= 120
        for entry in re.findall(r"^- (.*)", release, re.MULTILINE):
            wheels = set(entry.partition(":")[0].split(", "))
            assert wheels <= {*PACKAGES, "repository"}, f"unknown wheel: {entry}"


# The checkout's own folder, home directories, and settings of a package index.
FOREIGN = re.compile(
    rf"{re.escape(str(ROOT))}/"
    r"|/home/(?!pi|user|ubuntu)\w+/|(?:index-url|registry)[ =]+https?:"
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".cfg", ".sh", ""}


def test_nothing_of_one_machine_is_in_the_repository() -> None:
    wrong = []
    for path in tracked_files():
        if path.suffix not in TEXT_SUFFIXES:
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if FOREIGN.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)
