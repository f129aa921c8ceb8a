"""Commands of plug-ins: entry points of the group `dora.commands`.

Each is a function whose parameters are arguments and options as Typer reads them, a `Typer`
application, which may have subcommands, or a `Group` of `dora_cli.registry`, whose functions are
imported when they are named. The `rich_help_panel` of a command is its heading in `dora --help`.
A name of two words is a command of a group: `self wheels`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import typer
from typer.main import get_command, get_group

from dora_cli.command import CommandGroup
from dora_config import plugins
from dora_config.plugins import PluginError


def find(name: str) -> Any:
    """Return what an entry point names, None if it does not exist. Raises PluginError."""
    found = plugins.installed().find("dora.commands", name)
    if found is not None:
        return found.load()
    if (sentence := plugins.missing("dora.commands", name)) is not None:
        raise PluginError(sentence)
    return None


def words(group: str) -> list[str]:
    """Return the words that plug-ins add to a group, to `dora` itself if it is empty."""
    names = (name.rpartition(" ") for name in plugins.installed().names("dora.commands"))
    return [word for before, _, word in names if before == group]


def values(group: str, own: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what is added to a group by word, and what does not work; `own` are its own words."""
    found: dict[str, Any] = {}
    installed = plugins.installed()
    problems = [] if group else installed.refusals()
    for word in words(group):
        name = f"{group} {word}".lstrip()
        addition = installed.find("dora.commands", name)
        if addition is not None and word in own:
            problems.append(plugins.ignored(addition))
            continue
        try:
            found[word] = find(name)
        except PluginError as error:
            problems.append(str(error))
    return found, problems


def command_of(name: str, app: typer.Typer) -> Any:
    """Return the command of an application."""
    app.rich_markup_mode = None  # as commands of dora itself
    app.info.cls = app.info.cls or CommandGroup
    is_group = len(app.registered_commands) != 1 or app.registered_groups
    command = get_group(app) if is_group or app.registered_callback else _single(app)
    command.name = name
    return command


def _single(app: typer.Typer) -> Any:
    """Return the only command, without the options that install a completion."""
    plain = typer.Typer(add_completion=False, rich_markup_mode=None)
    plain.registered_commands = app.registered_commands
    return get_command(plain)
