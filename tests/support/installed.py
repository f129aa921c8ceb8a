"""Environments with exactly what a page installs: links to packages of this environment.

They are complete like an installation by pip, made in less than a second and without a network. A
requirement that no declared dependency brings is missing in them.
"""

from __future__ import annotations

import re
import shlex
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from support.sources import PACKAGES, ROOT

INDEX = ROOT / "docs" / "index.md"
_INSTALL = re.compile(r"(?:^|[`\s])(?:uv )?pip3? install ([^`\n]+)", re.MULTILINE)
_BRACES = re.compile(r"^(.*)\{(.*)\}(.*)$")
_SCRIPT = "#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"


def installed_by(text: str) -> frozenset[str]:
    """Return the requirements that the install lines of a page name; ours without `packages/`.

    Files, folders and options are left out.
    """
    return frozenset(
        requirement
        for line in _INSTALL.findall(text)
        for word in shlex.split(line, comments=True)
        for requirement in _requirements(word)
    )


def base() -> frozenset[str]:
    """Return what the page of the installation installs before it names anything optional."""
    first = _INSTALL.search(INDEX.read_text())
    assert first is not None, f"{INDEX} has no install line"
    return installed_by(first[0])


def _requirements(word: str) -> list[str]:
    if word == "packages/*":
        return list(PACKAGES)
    word = word.removeprefix("packages/")
    if word.startswith(("-", ".")) or "/" in word:
        return []
    braces = _BRACES.match(word)
    found = [word]
    if braces is not None:
        before, names, after = braces.groups()
        found = [f"{before}{name}{after}" for name in names.split(",")]
    try:
        return [str(Requirement(one)) for one in found]
    except InvalidRequirement:
        return []


def make_environment(folder: Path, requirements: Iterable[str]) -> Path:
    """Make an environment with the requirements and all that they depend on; return its Python.

    What the environment of the tests lacks is left out.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    made: set[Path] = set()
    for found in _closure(requirements):
        _write_scripts(found, python)
        for file in found.files or ():
            in_site = ".." not in file.parts
            if "__pycache__" in file.parts or not (in_site or file.parent.name == "bin"):
                continue
            target = site / str(file) if in_site else python.parent / file.name
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            if not target.exists():
                target.symlink_to(Path(str(file.locate())))
    return python


def _write_scripts(found: Distribution, python: Path) -> None:
    for entry in found.entry_points.select(group="console_scripts"):
        script = python.with_name(entry.name)
        module, function = entry.module, entry.attr
        script.write_text(_SCRIPT.format(python=python, module=module, function=function))
        script.chmod(0o755)


def _closure(requirements: Iterable[str]) -> Iterator[Distribution]:
    waiting = [Requirement(text) for text in requirements]
    extras: dict[str, set[str]] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        known = extras.get(name)
        if known is not None and requirement.extras <= known:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if known is None:
            yield found
        extras[name] = known = (known or set()) | requirement.extras
        for one in _requirements_of(name, found):
            if one.marker is None or any(
                one.marker.evaluate({"extra": extra}) for extra in ("", *known)
            ):
                waiting.append(one)


def _requirements_of(name: str, found: Distribution) -> list[Requirement]:
    """Return the dependencies; ours as their files name them, not as they were at the install."""
    if name not in PACKAGES:
        return [Requirement(text) for text in found.requires or ()]
    file = ROOT / "packages" / name / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    needed = [Requirement(text) for text in project["dependencies"]]
    for extra, texts in project.get("optional-dependencies", {}).items():
        for text in texts:
            optional = Requirement(f"{text.partition(';')[0]} ; extra == {extra!r}")
            needed.append(optional)
    return needed
