"""The page about the command line: every command, argument and option of the application itself."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tables import NOTICE, table

from dora_cli import registry
from dora_cli.main import create_application
from dora_config.launcher import COMMANDS, OWN_WORDS, find_command
from dora_recordings.commands.format_command import FormatCommand

PAGE = "reference/cli.md"

_TYPE_WORDS = {str: "text", int: "number", float: "number", Path: "path"}

INTRODUCTION = f"""\
{NOTICE}

# The command line

`dora COMMAND --help` shows the same on the terminal. Exit codes: 0 all went well, 1 the command or the dataflow failed (the reason is on standard
error, under `[ERROR]`), 2 the command line could not be understood, 130 interrupted. Durations are written `30` (seconds), `500ms`, `10s`, `5m`, `1h30m`.
"""


def render() -> str:
    application = create_application()
    context = application.make_context("dora", ["--help"], resilient_parsing=True)
    parts = [INTRODUCTION]
    for section in application.sections()[0]:
        commands = {
            word: command
            for word in section.commands
            if (command := application.get_command(context, word)) is not None
        }
        if commands:
            parts.append(f"## {section.title}\n")
        for word, command in commands.items():
            parts += _command(f"dora {word}", command)
    aliases = ", ".join(f"`{alias}` for `{word}`" for alias, word in _known_aliases(application))
    if aliases:
        parts.append(f"Also understood: {aliases}.\n")
    parts.append("## Services\n")
    for word in OWN_WORDS:
        parts += _service(word)
    return "\n".join(parts)


def _known_aliases(application: Any) -> Iterator[tuple[str, str]]:
    context = application.make_context("dora", ["--help"], resilient_parsing=True)
    for alias, word in registry.ALIASES.items():
        if application.get_command(context, word) is not None:
            yield alias, word


def _command(words: str, command: Any) -> Iterator[str]:
    if isinstance(command, FormatCommand):
        for name in command.formats():
            yield from _command(f"{words} {command.word} {name}", command.of(name))
        return
    subcommands = _subcommands(command)
    arguments = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
    options = [p for p in command.params if p.param_type_name == "option"]
    if words.count(" ") > 1 or not subcommands:
        usage = [words, *(_metavar(a) for a in arguments), "[OPTIONS]" if options else ""]
        yield f"### `{' '.join(filter(None, usage))}`\n"
        yield _help(command) + "\n"
        rows = [(f"`{_metavar(a)}`", "", getattr(a, "help", None) or "") for a in arguments]
        rows += [_option(o) for o in options if not o.hidden and o.name != "help"]
        if rows:
            yield table(("option", "default", "meaning"), rows) + "\n"
    for name, subcommand in sorted(subcommands.items()):
        yield from _command(f"{words} {name}", subcommand)


def _subcommands(command: Any) -> dict[str, Any]:
    if not hasattr(command, "list_commands"):
        return {}
    context = command.make_context("dora", ["--help"], resilient_parsing=True)
    return {word: command.get_command(context, word) for word in command.list_commands(context)}


def _help(command: Any) -> str:
    return textwrap.dedent(command.help or "").strip().replace("\f", "").replace("\b", "")


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]").upper().removesuffix("...")
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> tuple[str, str, str]:
    names = [*option.opts, *option.secondary_opts]
    words = ", ".join(f"`{name}`" for name in names)
    if not option.is_flag and not getattr(option, "count", False):
        words += f" `{_value(option)}`"
    default = (
        ""
        if option.default in (None, False, (), []) or callable(option.default)
        else option.default
    )
    help_text = (option.help or "").replace("<", "&lt;")
    if option.envvar:
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar
        help_text += f" Also from {', '.join(f'`{name}`' for name in variables)}."
    return words, f"`{_plain(default)}`" if default != "" else "", help_text


def _plain(default: object) -> str:
    return str(getattr(default, "value", default)) if default is not True else "yes"


def _value(option: Any) -> str:
    """The word for what follows an option: its choices, its metavar, or its type."""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return str(option.metavar or _TYPE_WORDS.get(kind, "value")).upper()


def _service(word: str) -> Iterator[str]:
    """Return the options of a command of another wheel."""
    command = find_command(word)
    if command is None:
        package = COMMANDS[word].partition(".")[0].replace("_", "-")
        sys.exit(
            f"docs/generate: `dora {word}` is not installed, and the page would lack it; run: "
            f"pip install -e packages/{package}"
        )
    yield from _command(f"dora {word}", sys.modules[command.__module__].command())
