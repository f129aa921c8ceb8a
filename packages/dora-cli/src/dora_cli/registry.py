"""Which module holds which command; nothing is imported before its command is named.

A command module has `app = options.application()` with either one command or several (then the
word is a group, as `dora self update`). To add a command, add its file and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of `dora --help` and the commands under it, word to module name."""

    title: str
    commands: Mapping[str, str] = field(default_factory=dict)


SECTIONS: tuple[Section, ...] = (
    Section(
        "On this machine",
        {
            "run": "dora_cli.commands.run",
            "build": "dora_cli.commands.build",
            "logs": "dora_cli.commands.logs",
        },
    ),
    Section(
        "Through a coordinator",
        {
            "up": "dora_cli.commands.up",
            "down": "dora_cli.commands.down",
            "start": "dora_cli.commands.start",
            "stop": "dora_cli.commands.stop",
            "restart": "dora_cli.commands.restart",
            "list": "dora_cli.commands.list",
            "status": "dora_cli.commands.status",
            "top": "dora_cli.commands.top",
            "node": "dora_cli.commands.node",
            "topic": "dora_cli.commands.topic",
            "param": "dora_cli.commands.param",
            "inspect": "dora_cli.commands.inspect",
            "clean": "dora_cli.commands.clean",
            "cluster": "dora_cli.commands.cluster",
        },
    ),
    Section(
        "Files",
        {
            "new": "dora_cli.commands.new",
            "validate": "dora_cli.commands.validate",
            "graph": "dora_cli.commands.graph",
            "expand": "dora_cli.commands.expand",
            "schema": "dora_cli.commands.schema",
        },
    ),
    Section(
        "This installation",
        {
            "doctor": "dora_cli.commands.doctor",
            "completion": "dora_cli.commands.completion",
            "help": "dora_cli.commands.help",
            "self": "dora_cli.commands.self_management",
        },
    ),
)

ALIASES: Mapping[str, str] = {"ps": "list", "destroy": "down", "check": "status"}
"""Second words for a command; not shown in the help."""

MODULES: Mapping[str, str] = {
    word: module for section in SECTIONS for word, module in section.commands.items()
}


def module_of(word: str) -> str | None:
    """The module of the command `word` (or alias), None when there is no such command."""
    return MODULES.get(ALIASES.get(word, word))
