"""Commands of plug-ins: entry points of the group `dora.commands`.

Each is a function whose parameters are arguments and options as Typer reads them, or a `Typer`
application, which may have subcommands. The `rich_help_panel` of the command is its heading in
`dora --help`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from typing import Any

import typer
from typer.main import get_command, get_group

from dora_config import plugins
from dora_config.plugins import PluginError

HEADING = "Plug-ins"


def find(name: str) -> Any:
    """Return a command of a plug-in, None if it does not exist. Raises PluginError."""
    found = plugins.installed().find("dora.commands", name)
    if found is not None:
        return command_of(name, found.load())
    if (sentence := plugins.missing("dora.commands", name)) is not None:
        raise PluginError(sentence)
    return None


def rows(core: Container[str]) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Return names and summaries by heading, and what does not work; `core` has its own names."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    problems = plugins.installed().refusals()
    for addition in plugins.installed().additions("dora.commands"):
        if addition.name in core:
            continue
        try:
            command = command_of(addition.name, addition.load())
        except PluginError as error:
            problems.append(str(error))
            continue
        panel = command.rich_help_panel
        row = addition.name, command.get_short_help_str(limit=200)
        found[panel if isinstance(panel, str) else HEADING].append(row)
    return found, problems


def command_of(name: str, value: Any) -> Any:
    """Return the command of a function or `Typer` application."""
    app = value
    if not isinstance(value, typer.Typer):
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command(name)(value)
    app.rich_markup_mode = None  # as commands of dora itself
    is_group = len(app.registered_commands) != 1 or app.registered_groups
    command = get_group(app) if is_group or app.registered_callback else _single(app)
    command.name = name
    return command


def _single(app: typer.Typer) -> Any:
    """Return the only command, without the options that install a completion."""
    plain = typer.Typer(add_completion=False, rich_markup_mode=None)
    plain.registered_commands = app.registered_commands
    return get_command(plain)
