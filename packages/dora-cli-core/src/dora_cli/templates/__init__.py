"""Contents of the files that `dora new` writes, from the folder of this module or a plug-in."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from dora_config import plugins

Template = Callable[[str], tuple[Mapping[str, str], Sequence[str]]]
"""Returns the files of a project by relative path, and the next commands for the user; raises
ValueError if the project cannot have the given name."""


def project(kind: str, name: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return the files and commands of a template. Raises PluginError and ValueError."""
    template: Template | None = OWN.get(kind)
    if template is None:
        if kind not in plugins.known_names("dora.templates") and kind not in kinds():
            raise ValueError(f"{kind!r} is not a kind that is installed: {', '.join(kinds())}")
        template = plugins.load("dora.templates", kind)
    files, commands = template(name)
    for path in files:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(f"the template {kind!r} has a file outside the project: {path}")
    return files, commands


def kinds() -> Sequence[str]:
    """Return the values of `--kind`."""
    return [*OWN, *(one for one in plugins.installed().names("dora.templates") if one not in OWN)]


def package_name(name: str) -> str:
    """Return `name` as the name of a Python package; raises ValueError."""
    package = re.sub(r"[-. ]+", "_", name.strip()).lower()
    if not package.isidentifier():
        raise ValueError(f"{name!r} is not a valid package name; use letters, digits, - and _")
    return package


def _dataflow(name: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return a dataflow with two talkers and a listener."""
    package_name(name)
    names = (
        *("dataflow.yml", "talker.py", "listener.py", "test_dataflow.py"),
        *("README.md", ".gitignore"),
    )
    files = {one: _text(f"dataflow/{one.removeprefix('.')}", NAME=name) for one in names}
    return files, ["dora run dataflow.yml"]


def _node(name: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return a Python project with one node."""
    package = package_name(name)
    if keyword.iskeyword(package):
        raise ValueError(f"{name!r} is a Python keyword; choose another name")
    if not package.isascii():
        raise ValueError(f"{name!r} is not a valid project name for pip; use ASCII letters")
    values = {"PACKAGE": package, "PROJECT": package.replace("_", "-")}
    files = {
        "pyproject.toml": _text("node/pyproject.toml", **values),
        "README.md": _text("node/README.md", **values),
        f"{package}/__init__.py": "",
        f"{package}/main.py": _text("node/main.py"),
        f"tests/test_{package}.py": _text("node/test.py", **values),
    }
    return files, ["pip install -e . pytest", "pytest"]


def _text(name: str, **values: str) -> str:
    """Return a file with ``@NAME@`` replaced by its value."""
    text = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda mark: values[mark[1]], text)


OWN: Mapping[str, Template] = MappingProxyType({"dataflow": _dataflow, "node": _node})
"""The kinds of the core."""
