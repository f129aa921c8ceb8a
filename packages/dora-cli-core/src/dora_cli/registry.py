"""The function of each command, as `MODULE:FUNCTION`; the module is imported when it is named.

The parameters of the function are the arguments and options as Typer reads them, its docstring is
the help. To add a command, add its function and a line here. Commands of plug-ins are added under
their headings.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Mapping
from typing import NamedTuple


class Group(NamedTuple):
    """A word with subcommands, as in `dora topic echo`; a plug-in may have one."""

    help: str
    commands: Mapping[str, str]
    heading: str | None = None
    """Heading of a plug-in's group in `dora --help`."""


class Section(NamedTuple):
    """A heading of a help text and the commands below it: functions or groups by word."""

    title: str
    commands: Mapping[str, str | Group]


def functions(module: str, *words: str) -> dict[str, str]:
    """Return the functions of a module by word; a word that Python reserves gets `_` at the end."""
    return {word: f"{module}:{_function(word)}" for word in words}


def _of(module: str, *words: str) -> dict[str, str]:
    return functions(f"dora_cli.commands.{module}", *words)


def _function(word: str) -> str:
    taken = keyword.iskeyword(word) or hasattr(builtins, word)
    return f"{word}_" if taken else word.replace("-", "_")


NODE = Group(
    "List, stop, restart and change the nodes of running dataflows.",
    _of(
        "node",
        *("list", "info", "stop", "restart", "add", "remove", "replace"),
        *("connect", "disconnect", "hold", "release"),
    ),
)
TOPIC = Group(
    "Inspect the outputs of running nodes and publish on them.",
    _of("topic", "list", "info", "pub", "echo", "hz"),
)
PARAM = Group(
    "Show and change the parameters of running nodes.",
    _of("param", "list", "get", "set", "delete"),
)
SELF = Group(
    "Test, update or remove this installation.", _of("installation", "update", "test", "uninstall")
)

SECTIONS: tuple[Section, ...] = (
    Section(
        "On this machine", {**_of("run", "run"), **_of("build", "build"), **_of("logs", "logs")}
    ),
    Section(
        "Through a coordinator",
        {
            **_of("coordinator", "up", "down"),
            **_of("dataflows", "start", "stop", "restart", "list"),
            **_of("coordinator", "status"),
            **_of("top", "top"),
            **_of("why", "why"),
            **_of("coordinator", "ui"),
            "node": NODE,
            "topic": TOPIC,
            "param": PARAM,
            **_of("dataflows", "clean"),
        },
    ),
    Section("Recordings", {}),
    Section("Files", _of("files", "new", "validate", "graph", "expand", "schema")),
    Section(
        "This installation",
        {**_of("installation", "doctor", "completion", "help"), "self": SELF},
    ),
)

ALIASES: Mapping[str, str] = {"ls": "list", "ps": "list", "destroy": "down", "check": "status"}
"""Alternative words of commands; hidden in help texts."""

PHRASES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("cluster", "doctor"): ("doctor",),
    ("cluster", "restart"): ("restart",),
    ("inspect", "top"): ("top",),
    ("record", "fetch"): ("recording", "fetch"),
    ("system", "status"): ("status",),
}
"""Other names of commands, of two words; hidden in help texts."""

UNSUPPORTED: Mapping[str, str] = {
    "hub": "`dora hub` is not supported: name the repository of a node in its `git` field",
    "runtime": "`dora runtime` is not needed: operators run in the process of their node",
    "trace": "`dora trace` is not supported: the coordinator sends spans to OpenTelemetry "
    "(OTEL_EXPORTER_OTLP_ENDPOINT), and `dora why` explains what happened",
}
"""Commands of dora-rs that do not exist here: a sentence with the replacement."""

_HUB_OVERRIDE = (
    "`--hub-override` is not supported: a node names its program in `path`, its repository in `git`"
)
UNSUPPORTED_OPTIONS: Mapping[tuple[str, str], str] = {
    ("run", "--hub-override"): _HUB_OVERRIDE,
    ("build", "--hub-override"): _HUB_OVERRIDE,
    ("up", "--interface"): "`up --interface` is not supported: `dora coordinator --interface IP` "
    "listens on other addresses",
    ("validate", "--node-manifest"): "`--node-manifest` is not supported: nodes have no manifests, "
    "and `input_types` and `output_types` in the dataflow file are checked",
}
"""Options of commands of dora-rs that do not exist here: a sentence with the replacement."""

COMMANDS: Mapping[str, str | Group] = {
    word: entry for section in SECTIONS for word, entry in section.commands.items()
}

NAMES: frozenset[str] = frozenset(
    [*COMMANDS, *ALIASES, *UNSUPPORTED]
    + [
        f"{word} {subcommand}"
        for word, entry in COMMANDS.items()
        if isinstance(entry, Group)
        for subcommand in entry.commands
    ]
)
"""Names that a plug-in cannot use: of commands, and of subcommands."""
