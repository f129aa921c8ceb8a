"""Commands of plug-ins: entry points of the group `dora.commands`.

Each is a function whose parameters are arguments and options as Typer reads them, a `Typer`
application, which may have subcommands, or a `Group`, which imports its commands when they are
named. The `rich_help_panel` of the command is its heading in `dora --help`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container
from typing import Any

import typer
from typer.main import get_command, get_group

from dora_config import plugins
from dora_config.plugins import PluginError

HEADING = "Plug-ins"

Load = Callable[[str, Any], Any]
"""Returns the command of this name of a function or a `Group`."""


def find(name: str, load: Load) -> Any:
    """Return a command of a plug-in, None if it does not exist. Raises PluginError."""
    found = plugins.installed().find("dora.commands", name)
    if found is not None:
        return _command(name, found.load(), load)
    if (sentence := plugins.missing("dora.commands", name)) is not None:
        raise PluginError(sentence)
    return None


def rows(core: Container[str], load: Load) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Return names and summaries by heading, and what does not work; `core` has its own names."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    problems = plugins.installed().refusals()
    for addition in plugins.installed().additions("dora.commands"):
        if addition.name in core:
            continue
        try:
            command = _command(addition.name, addition.load(), load)
        except PluginError as error:
            problems.append(str(error))
            continue
        panel = command.rich_help_panel
        row = addition.name, command.get_short_help_str(limit=200).partition(";")[0]
        found[panel if isinstance(panel, str) else HEADING].append(row)
    return found, problems


def _command(name: str, value: Any, load: Load) -> Any:
    if not isinstance(value, typer.Typer):
        return load(name, value)
    value.rich_markup_mode = None  # as commands of dora itself
    is_group = len(value.registered_commands) != 1 or value.registered_groups
    command = get_group(value) if is_group or value.registered_callback else _single(value)
    command.name = name
    return command


def _single(app: typer.Typer) -> Any:
    """Return the only command, without the options that install a completion."""
    plain = typer.Typer(add_completion=False, rich_markup_mode=None)
    plain.registered_commands = app.registered_commands
    return get_command(plain)
