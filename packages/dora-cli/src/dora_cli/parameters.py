"""Conversion of common values of parameters without pydantic.

typer converts every value with pydantic, whose import takes longer than most commands. This module
converts texts, flags, integers, choices, paths and values with a parser in the same way; typer
itself converts the others, and writes the message of every error.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.core import TyperCommand

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


class _Unsuitable(Exception):
    """The value is invalid, or of a type that typer converts."""


class QuickParameters:
    """Mixin of typer's commands and groups whose parameters convert their values quickly."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            # versions of typer without `_runtime_param` ignore it
            if getattr(param, "_runtime_param", _QUICK) is None:
                param._runtime_param = _QUICK
        return params


class QuickCommand(QuickParameters, TyperCommand):
    """Command that does not import pydantic."""


class _QuickConversion:
    """In the place of typer's `RuntimeParam`."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the converted value; raises typer's errors."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if not many:
            try:
                described = param.type_descriptor
                return _converted(value, described.annotation, described.parameter_info)
            except _Unsuitable:
                pass
        param._runtime_param = None  # typer creates its own at the next access
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


_QUICK = _QuickConversion()


def _converted(value: Any, annotation: Any, info: Any) -> Any:
    """Return the value; raises _Unsuitable, and what the parser of the parameter raises."""
    if info.parser is not None and isinstance(value, str):
        return info.parser(value)
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    if annotation == (bool | None) and isinstance(value, bool):
        return value
    if get_origin(annotation) is Literal and value in get_args(annotation):
        return value
    if annotation is Path and isinstance(value, str) and _needs_no_check(Path(value), info):
        return Path(value)
    if isinstance(value, str) and info.parser is None:
        if annotation is int and _INTEGER.fullmatch(value):
            return _in_range(int(value), info)
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return _choice(value, annotation, info)
    raise _Unsuitable


def _needs_no_check(path: Path, info: Any) -> bool:
    checks = (info.exists, info.writable, info.resolve_path, info.allow_dash, info.path_type)
    if any(checks) or not (info.file_okay and info.dir_okay):
        return False
    return os.access(path, os.R_OK) or not path.exists()


def _in_range(number: int, info: Any) -> int:
    low, high = info.min, info.max
    if (low is not None and number < low) or (high is not None and number > high):
        raise _Unsuitable
    return number


def _choice(text: str, choices: type[Enum], info: Any) -> Enum:
    def key(word: Any) -> str:
        return str(word) if info.case_sensitive else str(word).lower()

    for choice in choices:
        if key(choice.value) == key(text):
            return choice
    raise _Unsuitable
