"""The module of each command; a module is imported when its command is named.

A command module has a function `main`: its parameters are the arguments and options, its docstring
is the help. `SETTINGS` are arguments of `typer.Typer.command`. To add a command, add its module and
a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """A word with subcommands, as in `dora topic echo`."""

    help: str
    commands: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of a help text and the commands below it: modules or groups by word."""

    title: str
    commands: Mapping[str, str | Group]


def _modules(folder: str, *words: str) -> dict[str, str]:
    return {word: f"dora_cli.commands.{folder}.{word.replace('-', '_')}" for word in words}


CLUSTER = Group(
    "Manage a cluster of machines.",
    _modules(
        "cluster",
        "up",
        "status",
        "down",
        "remove",
        "install",
        "uninstall",
        "restart",
        "doctor",
        "exec",
        "logs",
        "diff",
        "apply",
        "history",
        "rollback",
        "pause",
        "resume",
        "upgrade",
        "downgrade",
        "promote",
        "rotate-token",
        "ca",
    ),
)
NODE = Group(
    "List, stop, restart and change the nodes of running dataflows.",
    _modules(
        "node",
        "list",
        "info",
        "stop",
        "restart",
        "add",
        "remove",
        "replace",
        "connect",
        "disconnect",
        "hold",
        "release",
    ),
)
TOPIC = Group(
    "Inspect the outputs of running nodes and publish on them.",
    _modules("topic", "list", "info", "pub", "echo", "hz"),
)
PARAM = Group(
    "Show and change the parameters of running nodes.",
    _modules("param", "list", "get", "set", "delete"),
)
INSPECT = Group("Inspect running dataflows.", _modules("coordinator", "top"))
SYSTEM = Group("Check the coordinator and its daemons.", _modules("coordinator", "status"))
RECORDING = Group(
    "Show and convert recordings, and manage those on the machines of a cluster.",
    {
        **_modules("recording", "info", "export"),
        "import": "dora_cli.commands.recording.import_",
        **_modules("recording", "list", "stop", "fetch", "remove"),
    },
)
SELF = Group(
    "Test, update or remove this installation.",
    _modules("self", "update", "test", "wheels", "uninstall"),
)

SECTIONS: tuple[Section, ...] = (
    Section("On this machine", _modules("local", "run", "build", "logs")),
    Section(
        "Through a coordinator",
        {
            **_modules("coordinator", "up", "down", "start", "stop", "restart"),
            **_modules("coordinator", "list", "status", "top", "why", "ui"),
            "node": NODE,
            "topic": TOPIC,
            "param": PARAM,
            "inspect": INSPECT,
            "system": SYSTEM,
            **_modules("coordinator", "clean"),
            "cluster": CLUSTER,
        },
    ),
    Section("Recordings", {**_modules("recording", "record", "replay"), "recording": RECORDING}),
    Section("Files", _modules("files", "new", "validate", "graph", "expand", "schema")),
    Section(
        "This installation",
        {**_modules("installation", "doctor", "completion", "help"), "self": SELF},
    ),
)

ALIASES: Mapping[str, str] = {"ps": "list", "destroy": "down", "check": "status"}
"""Alternative words of commands; hidden in help texts."""

PHRASES: Mapping[tuple[str, str], str] = {
    ("record", "fetch"): "dora_cli.commands.recording.fetch",
}
"""Modules of two words whose first is a command without subcommands; not in help texts."""

UNSUPPORTED: Mapping[str, str] = {
    "hub": "`dora hub` is not supported: name the repository of a node in its `git` field",
    "runtime": "`dora runtime` is not needed: operators run in the process of their node",
    "trace": "`dora trace` is not supported: the coordinator sends spans to OpenTelemetry "
    "(OTEL_EXPORTER_OTLP_ENDPOINT), and `dora why` explains what happened",
}
"""Commands of dora-rs that do not exist here: a sentence with the replacement."""

COMMANDS: Mapping[str, str | Group] = {
    word: entry for section in SECTIONS for word, entry in section.commands.items()
}
