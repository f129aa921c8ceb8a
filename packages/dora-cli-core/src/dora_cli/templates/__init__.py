"""Contents of the files that `dora new` writes, from the folder of this module."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path


def package_name(name: str) -> str:
    """Return `name` as the name of a Python package; raises ValueError."""
    package = re.sub(r"[-. ]+", "_", name.strip()).lower()
    if not package.isidentifier():
        raise ValueError(f"{name!r} is not a valid package name; use letters, digits, - and _")
    return package


def dataflow_files(name: str) -> Mapping[str, str]:
    """Return the files of a dataflow with two talkers and a listener, by relative path."""
    names = ("dataflow.yml", "talker.py", "listener.py", "README.md", ".gitignore")
    return {one: _text(f"dataflow/{one.removeprefix('.')}", NAME=name) for one in names}


def node_files(name: str) -> Mapping[str, str]:
    """Return the files of a Python project with one node, by relative path; raises ValueError."""
    package = package_name(name)
    if keyword.iskeyword(package):
        raise ValueError(f"{name!r} is a Python keyword; choose another name")
    if not package.isascii():
        raise ValueError(f"{name!r} is not a valid project name for pip; use ASCII letters")
    values = {"PACKAGE": package, "PROJECT": package.replace("_", "-")}
    return {
        "pyproject.toml": _text("node/pyproject.toml", **values),
        "README.md": _text("node/README.md", **values),
        f"{package}/__init__.py": "",
        f"{package}/main.py": _text("node/main.py"),
        f"tests/test_{package}.py": _text("node/test.py", **values),
    }


def _text(name: str, **values: str) -> str:
    """Return a file with ``@NAME@`` replaced by its value."""
    text = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda mark: values[mark[1]], text)
