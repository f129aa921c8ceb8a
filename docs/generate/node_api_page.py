"""The page about the node API: signatures and docstrings of the public classes, beside the prose."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tables import NOTICE

import dora
import dora_node_api

PAGE = "reference/node-api.md"
PROSE = Path(__file__).with_name("node-api.md")
"""The page itself, where ``<!-- class NAME -->`` stands for the generated part."""

_PLACE = re.compile(r"^<!-- (class|function) ([\w.]+) -->$", re.MULTILINE)


def render() -> str:
    return f"{NOTICE}\n\n" + _PLACE.sub(_generated, PROSE.read_text())


def _generated(match: re.Match[str]) -> str:
    target = _find(match[2])
    if match[1] == "function":
        return _entry(match[2].rpartition(".")[2], target)
    return "\n".join(_entry(name, method) for name, method in _methods(target)).rstrip()


def _find(name: str) -> Any:
    """What ``dora.NAME`` or ``dora_node_api.NAME`` is; a dotted name may go through a module."""
    place: Any = dora if hasattr(dora, name.partition(".")[0]) else dora_node_api
    for part in name.split("."):
        place = getattr(place, part)
    return place


def _methods(target: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(target).items():
        public = not name.startswith("_") or name == "__init__"
        if public and inspect.isfunction(member) and (member.__doc__ or name == "__init__"):
            yield (target.__name__ if name == "__init__" else name), member


def _entry(name: str, function: Callable[..., Any]) -> str:
    waits = "await " if inspect.iscoroutinefunction(function) else ""
    text = inspect.cleandoc(function.__doc__ or "").replace("``", "`")
    return f"**`{waits}{name}({_parameters(function)})`**\n\n{text}".rstrip() + "\n"


def _parameters(function: Callable[..., Any]) -> str:
    """As in the source, without ``self`` and annotations: names and defaults are what one types."""
    parts = []
    parameters = list(inspect.signature(function).parameters.values())
    for index, parameter in enumerate(parameters):
        if parameter.name == "self":
            continue
        kinds = {earlier.kind for earlier in parameters[:index]}
        if parameter.kind is parameter.KEYWORD_ONLY and not kinds & {
            parameter.KEYWORD_ONLY,
            parameter.VAR_POSITIONAL,
        }:
            parts.append("*")
        parts.append(str(parameter.replace(annotation=parameter.empty)))
    return ", ".join(parts)
