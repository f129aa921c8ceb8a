"""Options and arguments that several commands share, and parsers of their values."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from dora_cli import output
from dora_config.program import checked as checked
from dora_config.terminal import visible
from dora_config.yaml.quantities import parse_duration


def positive_duration(text: str) -> float:
    """Return the seconds of a duration above zero; raises ValueError."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r}: expected a duration above 0")
    return seconds


def duration(*names: str, help: str, parse: Callable[[str], float] = parse_duration) -> Any:
    """Return an option whose value is a duration such as `10s`, in seconds."""
    return typer.Option(*names, metavar="DURATION", parser=checked(parse), help=help)


def parse_env_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Return variables by name; the last of a repeated name wins.

    Values are passed to nodes exactly as written, such as `01` and `true`. Raises ValueError for a
    missing `=`, an empty or malformed name, or a `$`, which would not be expanded.
    """
    overrides: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: expected KEY=VALUE")
        if not name:
            raise ValueError(f"{pair!r}: empty key, expected KEY=VALUE")
        if any(character.isspace() or character == "\0" for character in name):
            raise ValueError(f"{pair!r}: white space in the name {name!r}")
        if "$" in value:
            raise ValueError(
                f"{pair!r}: variables are not expanded; let the shell expand it "
                f'({name}="$NAME"), or use `env:` in the dataflow file'
            )
        overrides[name] = value
    return overrides


TableFormat = Literal["table", "json"]
"""Values of `--format`: a table, or one JSON object a line."""


TextFormat = Literal["text", "json"]
"""Values of `--format`: text, or one JSON object."""


class Json(NamedTuple):
    """A value that was given as JSON: `Json(None)` is null, None a missing argument."""

    value: Any


def _json(text: str) -> Json:
    """Return the value of a JSON text; raises ValueError if invalid or not serializable."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        value = json.loads(text)
        to_json(value)
    except RecursionError:
        problem = "nested too deeply"
    except PydanticSerializationError as error:
        problem = f"cannot be serialized: {error}"
    except ValueError as error:
        problem = str(error)
    else:
        return Json(value)
    raise ValueError(f"it is not valid JSON ({problem})")


def json_value(text: str) -> Json:
    """Return the value of a JSON text on the command line; raises ValueError."""
    try:
        return _json(text)
    except ValueError as error:
        raise ValueError(f"{error}; quote text twice: '\"text\"'") from None


def json_file(path: str) -> Json:
    """Return the value of a JSON file; raises ValueError and OSError."""
    return _json(Path(path).read_text())


def parse_boolean(text: str) -> bool:
    """Return the value of `true` or `false`; raises ValueError."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r}: expected true or false")
    return words[text.lower()]


DataflowFile = Annotated[Path, typer.Argument(metavar="PATH", help="The dataflow file.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Enable debug inspection, regardless of the file.")
]
Watch = Annotated[
    bool, typer.Option("--watch", "--hot-reload", help="Replace a node when its files change.")
]
Ui = Annotated[
    bool,
    typer.Option(
        "--ui", help="Show the dataflow in the browser as `dora ui` does; implies --debug."
    ),
]
Uv = Annotated[bool, typer.Option("--uv", help="Build and run Python nodes with uv.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show all output of builds.")]
StrictTypes = Annotated[bool, typer.Option("--strict-types", help="Treat type warnings as errors.")]
Locked = Annotated[
    bool, typer.Option("--locked", help="Use the commits in the lock file for git sources.")
]
WriteLockFile = Annotated[
    bool,
    typer.Option("--write-lockfile", help="Write the commits of git sources to the lock file."),
]
LockFile = Annotated[
    Path | None,
    typer.Option(
        "--lockfile",
        metavar="PATH",
        help="The lock file; default <dataflow>.dora-lock.yaml beside the dataflow file.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Do not use the network; fail if it is needed.")
]
EnvPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="KEY=VALUE",
        help="Environment variable for all nodes (repeatable); `env` of a node overrides it.",
    ),
]
ExitWhenNodesFinish = Annotated[
    str | None,
    typer.Option(
        "--exit-when-nodes-finish",
        metavar="[=BOOL]",
        help="Finish when only timers would wake the remaining nodes; overrides the file.",
    ),
]
Output = Annotated[
    TableFormat,
    typer.Option(
        "--format", "-f", case_sensitive=False, help="A table, or one JSON object a line."
    ),
]


OptionalFleetFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="The cluster file, whose coordinator is asked by default, or a file of "
        "only `dataflows`.",
    ),
]
ForceHolds = Annotated[
    bool, typer.Option("--force", help="Do not wait for nodes that hold updates.")
]


def confirmed(question: str, *, yes: bool) -> bool:
    """Return whether the user agrees; ``yes``: without a question."""
    if not yes and not sys.stdin.isatty():
        output.failure("nothing was changed: this is not a terminal; confirm with --yes")
        return False
    return yes or typer.confirm(visible(question))


def env_overrides(pairs: list[str] | None) -> dict[str, str]:
    """Return the values of `--env`; raises BadParameter."""
    try:
        return parse_env_overrides(pairs or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--env'") from None


def optional_boolean(text: str | None) -> bool | None:
    """Return the value of an option that takes one; raises BadParameter."""
    return None if text is None else checked(parse_boolean)(text)
