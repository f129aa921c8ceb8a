"""Commands that install missing packages: wheels of dora, libraries of their extras, others.

On the public index the names of the wheels do not exist or belong to other projects. So a wheel is
installed from the source of the other ones: a checkout of the repository, or a folder of wheels.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from importlib.metadata import Distribution

CHECKOUT = "in a checkout of dora for Python"
MANIFEST = "bundle.json"
"""File of an installation that `dora cluster` has put on a machine, beside its folder `bin`."""


@cache
def own_wheels() -> dict[str, list[str]]:
    """Return the wheels of this project, lowest first, with those that each one needs."""
    file = Path(__file__).with_name("wheels.json")  # written by docs/generate
    found: dict[str, list[str]] = json.loads(file.read_text())
    return found


def with_needed(*wheels: str) -> list[str]:
    """Return wheels of this project and those that they need, lowest first."""
    found = set(wheels)
    for wheel, needed in reversed(own_wheels().items()):
        if wheel in found:
            found.update(needed)
    return [wheel for wheel in own_wheels() if wheel in found]


def install_command(*packages: str, python: str = sys.executable) -> str:
    """Return the command that installs packages of an index, files or folders."""
    if find_spec("pip") is None:
        return join(["uv", "pip", "install", "--python", python, *packages])
    return join([python, "-m", "pip", "install", *packages])


def uninstall_command(package: str) -> str:
    """Return the command that removes a package from this environment."""
    if find_spec("pip") is None:
        return join(["uv", "pip", "uninstall", "--python", sys.executable, package])
    return join([sys.executable, "-m", "pip", "uninstall", package])


def is_bundle() -> bool:
    """Return whether `dora cluster` created this installation, and so replaces it as a whole."""
    return (Path(sys.prefix) / MANIFEST).is_file()


def extra_command(wheel: str, extra: str) -> str:
    """Return the command that installs the libraries of an extra, or the wheel if it is missing."""
    found = _installed(wheel)
    if found is None:
        return wheel_command(wheel)
    suffixes = (f"extra == '{extra}'", f'extra == "{extra}"')
    libraries = [
        text.partition(";")[0].strip() for text in found.requires or () if text.endswith(suffixes)
    ]
    return install_command(*libraries)


def wheel_command(wheel: str, *options: str) -> str:
    """Return the command that installs a wheel of dora and what it needs of dora.

    With `options` it installs a damaged wheel again, alone.
    """
    needed = [] if options else [one for one in with_needed(wheel) if _installed(one) is None]
    wheels = [*(one for one in needed if one != wheel), wheel]
    sources = [_source(one) for one in wheels]
    words = [word for source in sources if source is not None for word in source]
    if None not in sources:
        return install_command(*options, *words)
    return f"{install_command(*options, *(f'packages/{one}' for one in wheels))} ({CHECKOUT})"


def wheel_source(wheel: str) -> str:
    """Return the arguments with which pip installs a wheel of dora and the wheels that it needs."""
    wheels = with_needed(wheel)
    return join([word for one in wheels for word in _source(one) or [f"packages/{one}"]])


def _source(wheel: str) -> list[str] | None:
    """Return pip's arguments for a wheel beside the origin of this one; None if that is unknown.

    pip keeps no origin of a wheel that it found with ``--find-links``.
    """
    own = _installed("dora-config")
    return None if own is None else _sibling(own, wheel)


def _installed(wheel: str) -> Distribution | None:
    """Return an installed wheel; None also for one that is run from its source."""
    from importlib.metadata import PackageNotFoundError, distribution  # a slow import

    try:
        return distribution(wheel)
    except PackageNotFoundError:
        return None


def _sibling(own: Distribution, wheel: str) -> list[str] | None:
    """Return pip's arguments for a wheel beside the origin of an installed one."""
    try:
        origin: Any = json.loads(own.read_text("direct_url.json") or "{}")
        path = Path(unquote(urlsplit(origin["url"]).path))
    except (ValueError, KeyError):
        return None
    if "dir_info" in origin:
        folder = path.parent / wheel
        editable = ["-e"] if origin["dir_info"].get("editable") else []
        return [*editable, str(folder)] if (folder / "pyproject.toml").is_file() else None
    name = wheel.replace("-", "_")
    file = next(iter(sorted(path.parent.glob(f"{name}-{own.version}-*.whl"))), None)
    return None if file is None else [str(file)]
