"""Parameters of commands: declared by fields, converted without pydantic.

A field has the words and the value of an option or argument as users write them, and its help. The
docstring of a command ends with its fields, in the order of the signature, without those of shared
parameters, which are part of their `Annotated` type.

    :BAG: Folder, .mcap or .db3 file of a ROS 2 bag.
    :--output, -o FILE: Default BAG_dora.mcap.
    :--follow, -F (-f): Words in parentheses work too, and are not shown.

typer converts every value with pydantic, whose import takes longer than most commands. This module
converts texts, flags, integers, choices, paths and values with a parser in the same way; typer
itself converts the others, and writes the message of every error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from functools import cache
from inspect import getdoc, signature
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from dora_cli.registry import UNSUPPORTED_OPTIONS

_HIDDEN = re.compile(r"\([^)]*\)")
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def function_command(name: str, function: Callable[..., None]) -> Any:
    """Return the command of a function; `SETTINGS` of its module may have more settings."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    more = getattr(sys.modules[function.__module__], "SETTINGS", {}).get(function.__name__, {})
    declared = declare(function)
    app.command(name, **{"cls": QuickCommand, **more})(declared)
    command: Any = typer.main.get_command(app)
    command.hidden_words = getattr(declared, "hidden_words", {})
    return command


@cache
def declare(command: Callable[..., None]) -> Callable[..., None]:
    """Move the parameters in the docstring into the signature, for typer.

    A function without fields is left as it is. Raises ValueError unless the docstring has all that
    are not declared by their type.
    """
    text, *fields = re.split(r"\n+:(?=\S)", getdoc(command) or "")
    own = signature(command, eval_str=True)
    known = {
        name: _Declared.of(one.annotation)
        for name, one in own.parameters.items()
        if one.annotation is not typer.Context
    }
    bare = [one for one in known.values() if not one.field]
    if not fields and len(bare) == len(known):
        return command
    for one, field in zip(bare, fields, strict=True):
        one.field = field
    parameters = [
        one.replace(annotation=known[name].annotation()) if name in known else one
        for name, one in own.parameters.items()
    ]
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    hidden = {name: one.hidden_words() for name, one in known.items()}
    command.hidden_words = {name: words for name, words in hidden.items() if words}  # type: ignore[attr-defined]
    command.__doc__ = text
    return command


@dataclass(slots=True)
class _Declared:
    """A parameter; `info` has what a field cannot say, such as limits."""

    kind: Any
    info: Any = None
    field: str = ""

    @classmethod
    def of(cls, annotation: Any) -> _Declared:
        """Read `Annotated[...]` or `Annotated[...] | None`; others have only a type."""
        for one in (annotation, *get_args(annotation)):
            if get_origin(one) is Annotated:
                kind, *more = get_args(one)
                texts = [text.removeprefix(":") for text in more if isinstance(text, str)]
                infos = [info for info in more if not isinstance(info, str)]
                kind = kind if one is annotation else kind | None
                return cls(kind, *(infos or [None]), *texts)
        return cls(annotation)

    def hidden_words(self) -> list[str]:
        """Return the words in parentheses."""
        words, _, _ = self.field.partition(": ")
        return [one for found in _HIDDEN.findall(words) for one in found[1:-1].split(", ")]

    def annotation(self) -> Any:
        """Return the type for typer."""
        words, _, description = self.field.partition(": ")
        words = _HIDDEN.sub("", words)
        options = re.findall(r"(?<!\S)--?[A-Za-z][^\s,]*", words)
        info = copy(self.info) or (typer.Option() if options else typer.Argument())
        info.param_decls = options or None
        value = " ".join(word for word in words.split() if word.rstrip(",") not in options)
        info.metavar = value or info.metavar
        info.help = " ".join(description.split())
        return Annotated[self.kind, info]


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
    """Command that does not import pydantic, and explains options that it lacks."""

    hidden_words: Mapping[str, Sequence[str]] = {}
    """More words of its options, by parameter; not shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word in takewhile(lambda word: word != "--", args):
            option = word.partition("=")[0]
            reason = UNSUPPORTED_OPTIONS.get((ctx.info_name, option))
            if reason is not None and ctx.parent is not None and ctx.parent.parent is None:
                ctx.fail(reason)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if getattr(error, "code", None) == "ambiguous":
                error.args = (f"{error}{self._how_to_name(ctx)}", *error.args[1:])
            raise

    def _how_to_name(self, ctx: Any) -> str:
        """Return how this command takes the name of a dataflow."""
        for param in self.get_params(ctx):
            if param.name in ("dataflow", "attach"):
                is_option = param.param_type_name == "option"
                how = f"{param.opts[0]} NAME" if is_option else f"{ctx.command_path} NAME"
                return f" (`{how}`)"
        return ""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        for param in self.get_params(ctx):
            for word in self.hidden_words.get(param.name, ()):
                options = parser._long_opt if word.startswith("--") else parser._short_opt
                options[word] = parser._long_opt[param.opts[0]]
        return parser


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
        try:
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
        except typer.BadParameter as error:
            # the prefix is pydantic's
            error.message = error.message.removeprefix("Value error, ").removesuffix(".")
            raise


_QUICK = _QuickConversion()


def _converted(value: Any, annotation: Any, info: Any) -> Any:
    """Return the value; raises _Unsuitable, and what the parser of the parameter raises."""
    if info.parser is not None and isinstance(value, str):
        return info.parser(value)
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    if annotation == (bool | None) and isinstance(value, bool):
        return value
    if annotation is Path and isinstance(value, str) and _needs_no_check(Path(value), info):
        return Path(value)
    if isinstance(value, str) and info.parser is None:
        if annotation is int and _INTEGER.fullmatch(value):
            return _in_range(int(value), info)
        if get_origin(annotation) is Literal:
            return _choice(value, get_args(annotation), info)
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


def _choice(text: str, choices: Iterable[Any], info: Any) -> Any:
    def key(word: Any) -> str:
        return str(word) if info.case_sensitive else str(word).lower()

    for choice in choices:
        if key(choice.value if isinstance(choice, Enum) else choice) == key(text):
            return choice
    raise _Unsuitable
