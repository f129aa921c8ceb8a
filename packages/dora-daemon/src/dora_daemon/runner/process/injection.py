"""Puts this ``dora`` first on a node's import path, and explains why a node does not find it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dora_node_api
from dora_config.plugins import PluginError, installed, known_names, missing

PACKAGES = ("dora", "dora_node_api")
_IGNORES_PYTHONPATH = ("-I", "-E", "-IE", "-EI")

GROUP: Final = "dora.node_packages"
"""Entry points of packages that replace those of scripts."""


def make_package_folder(folder: Path) -> Path:
    """Create a folder with links to few packages only, for the front of PYTHONPATH.

    A node's own environment then needs pyarrow only, and another ``dora`` package that is installed
    there does not come first.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in PACKAGES:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(_location(name), target_is_directory=True)
    return folder


def link_package(folder: Path, program: str) -> str | None:
    """Let the script of this name import the package of a plug-in in place of its own.

    `dora-rerun` of the index is compiled against dora-rs, for example. Return a problem, or None.
    """
    name = program.replace("-", "_")
    if name not in known_names(GROUP):  # the metadata of plug-ins is slow to read
        return None
    try:
        found = installed().find(GROUP, name)
        place = None if found is None else Path(found.load().__file__).parent
    except PluginError as error:
        return str(error)
    link = folder / name
    if place is None:
        return missing(GROUP, name)
    if not link.is_symlink():
        link.symlink_to(place, target_is_directory=True)
    return None


def _location(package: str) -> Path:
    """Return the location of a package, which may differ from that of `import dora`.

    PYTHONPATH may contain dora-rs, and the `build` line of a node may install it over this package.
    So the wheel has a copy inside dora_node_api.
    """
    api = Path(dora_node_api.__file__).resolve().parent
    if package == "dora_node_api":
        return api
    copy = api / "front" / "dora"
    return copy if copy.is_dir() else api.parent / "dora"


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """Facts about the start of a node."""

    argv: tuple[str, ...]
    script: Path | None
    """The Python file, if any."""
    shell: bool = False
    has_ports: bool = True
    """A program without inputs and outputs need not be a dora node."""


def explain(facts: LaunchFacts) -> str | None:
    """Return why a node may not have found this ``dora`` package; None if unknown."""
    if facts.shell:
        return None
    if (flag := _isolating_flag(facts)) is not None:
        return (
            f"it runs Python with {flag}, which ignores PYTHONPATH, so that dora could not hand it"
            f" its own `dora` package; leave {flag} out"
        )
    if facts.script is not None:
        return _shadowed(facts.script)
    if facts.has_ports and _is_binary(Path(facts.argv[0])):
        return (
            f"{facts.argv[0]} is a binary (such as a frozen application) with its own `dora`"
            " package or none; run the Python file instead, or build it with this version's"
            " dora-node-api"
        )
    return None


def _isolating_flag(facts: LaunchFacts) -> str | None:
    words = list(facts.argv)
    first = Path(words[0])
    if facts.script is None and not first.name.startswith("python"):
        words = shebang(first)
    for word in words[1:]:
        if word in _IGNORES_PYTHONPATH:
            return word
        if not word.startswith("-") and not Path(word).name.startswith("python"):
            break
    return None


def shebang(program: Path) -> list[str]:
    """Return the words of a script's first line if it names Python."""
    try:
        with program.open("rb") as file:
            line = file.readline(256)
    except OSError:
        return []
    if line.startswith(b"#!") and b"python" in line:
        return line[2:].decode(errors="replace").split()
    return []


def _shadowed(script: Path) -> str | None:
    """Return a module beside the script, which comes before PYTHONPATH."""
    for name in PACKAGES:
        for beside in (script.parent / name, script.parent / f"{name}.py"):
            if os.path.exists(beside):  # noqa: PTH110 - Path.exists raises, as for EACCES
                return (
                    f"{beside} lies beside the node's script, so that `import {name}` finds it"
                    " instead of the dora package; rename it"
                )
    return None


def _is_binary(program: Path) -> bool:
    if program.name.startswith("python"):
        return False
    try:
        with program.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
