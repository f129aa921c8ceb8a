"""Commands of plug-ins: entry points of the group `dora.commands`.

Each is a function whose parameters are arguments and options as Typer reads them, a `Typer`
application, which may have subcommands, or a `Group` of `dora_cli.registry`, whose functions are
imported when they are named. The `rich_help_panel` of a command is its heading in `dora --help`.
A name of two words is a command of a group: `self wheels`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any

from dora_config import plugins
from dora_config.plugins import PluginError

Build = Callable[[str, Any], Any]
"""Returns the command for a name and the object of an entry point."""


def find(name: str, build: Build) -> Any:
    """Return a command, None if it does not exist. Raises PluginError."""
    found = plugins.installed().find("dora.commands", name)
    if found is not None:
        return found.use(partial(build, name.rpartition(" ")[2]))
    if (sentence := plugins.missing("dora.commands", name)) is not None:
        raise PluginError(sentence)
    return None


def words(group: str) -> list[str]:
    """Return the words that plug-ins add to a group, to `dora` itself if it is empty."""
    names = (name.rpartition(" ") for name in plugins.installed().names("dora.commands"))
    return [word for before, _, word in names if before == group]


def values(group: str, own: Container[str], build: Build) -> tuple[dict[str, Any], list[str]]:
    """Return the added commands of a group, and problems; `own` are the words of dora itself."""
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
            found[word] = find(name, build)
        except PluginError as error:
            problems.append(str(error))
    return found, problems
