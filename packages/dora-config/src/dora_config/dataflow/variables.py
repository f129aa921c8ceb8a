"""Expansion of `$VAR` in texts of the YAML, and reserved variables; pure.

`$NAME` and `${NAME}` are replaced by the variable, `${NAME:-text}` by the text if it is not set,
`$$` by a dollar sign. Any other `$` is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})",
    re.ASCII,
)
_PATH_REFERENCE = re.compile(
    r"\$(?:(HOME|USER|PWD|DORA_WORKSPACE)\b|\{(HOME|USER|PWD|DORA_WORKSPACE)\})"
)
_PARAMETER = re.compile(r"\$(?:(PARAM_[A-Za-z0-9_]+)|\{(PARAM_[A-Za-z0-9_]+)\})", re.ASCII)

ALLOW_SHELL = "DORA_ALLOW_SHELL_NODES"
"""Set to true, it allows nodes with `path: shell`."""

_PRIVATE = frozenset(
    {
        "DORA_NODE_CONFIG",
        "DORA_RUNTIME_CONFIG",
        "DORA_RUN_PARENT_PID",
        "DORA_AUTH_TOKEN",
        ALLOW_SHELL,
    }
)
_PRIVATE_PREFIX = "DORA_ZENOH_"
_RESERVED = frozenset({"ZENOH_CONFIG", "LD_PRELOAD", "LD_AUDIT"})
_RESERVED_PREFIX = "DYLD_"


class UndefinedVariable(ValueError):
    """A text contains a variable that is not set."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"environment variable ${self.name} is not defined"


def expand_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace variables in `text` by values of `environ`; raise `UndefinedVariable`."""
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["bare"] or match["braced"]
        found = environ.get(name, match["default"])
        if found is None:
            raise UndefinedVariable(name)
        return found

    return _REFERENCE.sub(value, text)


def find_variables(text: str) -> list[str]:
    """Return the names of the variables in `text`."""
    names = [match["bare"] or match["braced"] for match in _REFERENCE.finditer(text)]
    return [name for name in names if name]


def escape_variables(text: str) -> str:
    """Return a text that `expand_variables` expands to `text`."""
    return text.replace("$", "$$")


def expand_path(path: str, environ: Mapping[str, str]) -> str:
    """Replace HOME, USER, PWD and DORA_WORKSPACE in a node's `path`.

    A variable that is not set is unchanged, so that the error about the missing file contains it.
    """
    return _PATH_REFERENCE.sub(lambda match: environ.get(match[1] or match[2], match[0]), path)


def expand_parameters(text: str, parameters: Mapping[str, str]) -> str:
    """Replace parameters of a module (`PARAM_<KEY>`) in `text`; raise `UndefinedVariable`."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in parameters:
            raise UndefinedVariable(name)
        return parameters[name]

    return _PARAMETER.sub(value, text)


def is_private(name: str) -> bool:
    """Return whether a variable is internal to dora and not inherited by the programs it starts."""
    return name in _PRIVATE or name.startswith(_PRIVATE_PREFIX)


def is_reserved(name: str) -> bool:
    """Return whether a file or `--env` must not set a variable.

    Reserved are the internal variables, and those that change which code a program loads. Programs
    inherit the latter from the environment of dora.
    """
    return is_private(name) or name in _RESERVED or name.startswith(_RESERVED_PREFIX)
