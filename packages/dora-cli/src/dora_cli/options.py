"""Options and arguments that several commands share, with the parsing of their values."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from dora_cli.values.env_overrides import parse_env_overrides

T = TypeVar("T")


class TableFormat(StrEnum):
    """`-f`: a table for people, or one JSON object a line."""

    TABLE = "table"
    JSON = "json"


def application() -> typer.Typer:
    """The `app` of a command module: plain text, completion only through `dora completion`."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` for an option: its ValueError becomes a usage error with the same sentence."""

    def parser(text: str) -> T:
        if not isinstance(text, str):  # a default, parsed already
            return text
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    parser.__name__ = parse.__name__
    return parser


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError for what is none, or cannot be sent."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        value = json.loads(text)
        to_json(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except PydanticSerializationError as error:
        raise ValueError(f"it cannot be sent: {error}") from None
    return value


def parse_boolean(text: str) -> bool:
    """`true` or `false`; ValueError for anything else."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r}: expected true or false")
    return words[text.lower()]


class OptionalValues(TyperCommand):
    """A command whose options in `bare` may stand without a value, which then is `true`."""

    bare = ("--exit-when-nodes-finish",)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [f"{word}=true" if word in self.bare else word for word in args]
        return super().parse_args(ctx, words)


DataflowFile = Annotated[
    Path, typer.Argument(metavar="PATH", help="The dataflow file.", show_default=False)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Turn on debug inspection, whatever the file says.")
]
Uv = Annotated[bool, typer.Option("--uv", help="Build and run Python nodes with uv.")]
Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Run build lines also where nothing has changed since."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show everything that builds print.", show_default=False)
]
StrictTypes = Annotated[
    bool, typer.Option("--strict-types", help="Type warnings are errors.", show_default=False)
]
Locked = Annotated[
    bool, typer.Option("--locked", help="Use the commits of the lock file for git sources.")
]
WriteLockFile = Annotated[
    bool, typer.Option("--write-lockfile", help="Record the commits of git sources.")
]
LockFile = Annotated[
    Path | None,
    typer.Option(
        "--lockfile",
        metavar="PATH",
        help="The lock file; by default <dataflow>.dora-lock.yaml beside the dataflow file.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Do not use the network: fail where it would be needed.")
]
EnvPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="KEY=VALUE",
        help="A variable for all nodes (repeatable); a node's own `env` wins.",
    ),
]
ExitWhenNodesFinish = Annotated[
    str | None,
    typer.Option(
        "--exit-when-nodes-finish",
        metavar="[=BOOL]",
        help="Finish when only timers are left to wake the nodes; overrides the file either way.",
    ),
]
Output = Annotated[
    TableFormat,
    typer.Option("--format", "-f", case_sensitive=False, help="Table, or one JSON object a line."),
]


def env_overrides(pairs: list[str] | None) -> dict[str, str]:
    """The values of `--env`; a usage error when one is wrong."""
    try:
        return parse_env_overrides(pairs or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--env'") from None


def optional_boolean(text: str | None) -> bool | None:
    """The value of an option in `OptionalValues.bare`; a usage error when it is no boolean."""
    return None if text is None else checked(parse_boolean)(text)
