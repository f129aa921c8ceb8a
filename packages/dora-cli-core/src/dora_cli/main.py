"""The application: finds the named command, maps exceptions to exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.command import CommandGroup, command_for
from dora_cli.registry import ALIASES, PHRASES, SECTIONS, UNSUPPORTED, Group, Section
from dora_config.launcher import COMMANDS, OWN_WORDS
from dora_config.program import HELP
from dora_config.streams import finish

COMPLETION_VARIABLE = "_DORA_COMPLETE"


class LazyGroup(CommandGroup):
    """A group that imports a command when it is named; plug-ins add commands to it."""

    def __init__(
        self,
        *,
        sections: Sequence[Section] = SECTIONS,
        aliases: Mapping[str, str] = ALIASES,
        unsupported: Mapping[str, str] = UNSUPPORTED,
        path: str = "",
        **settings: Any,
    ) -> None:
        """`path`: its words after `dora`."""
        super().__init__(**settings)
        self._sections = sections
        self._aliases = aliases
        self._unsupported = unsupported
        self._path = path
        self._entries = {
            word: entry for section in sections for word, entry in section.commands.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        from dora_cli import plugin_commands

        own = [*self._entries, *(() if self._path else OWN_WORDS)]
        hidden = {*self._aliases, *self._unsupported}
        added = [word for word in plugin_commands.words(self._path) if word not in hidden]
        return list(dict.fromkeys([*own, *added]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name, None if it does not exist."""
        if cmd_name not in self.commands:
            entry = self._entries.get(self._aliases.get(cmd_name, cmd_name))
            if entry is None and not self._path and cmd_name in OWN_WORDS:  # help, completion
                entry = import_module(COMMANDS[cmd_name]).command()
            if entry is not None:
                self.commands[cmd_name] = self._load(cmd_name, entry)
            elif (command := self._of_plugin(ctx, cmd_name)) is not None:
                self.commands[cmd_name] = command
        return self.commands.get(cmd_name)

    def _of_plugin(self, ctx: Any, name: str) -> Any:
        """Return a plug-in's command; None if it does not exist, or fails in a completion."""
        from dora_cli import plugin_commands
        from dora_config.plugins import PluginError

        try:
            return plugin_commands.find(f"{self._path} {name}".lstrip(), self._load)
        except PluginError:
            if ctx.resilient_parsing:
                return None
            raise

    def _load(self, name: str, entry: Any) -> Any:
        return _load(name, entry, f"{self._path} {name}".lstrip())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        phrase = PHRASES.get((args[0], args[1])) if ctx.parent is None and args[1:] else None
        if phrase is not None:
            command: Any = self
            for word in phrase:
                command = command and command.get_command(ctx, word)
            if command is not None:  # of a plug-in, which may be missing
                return " ".join(args[:2]), command, args[2:]
        word = args[0]
        if word in self._unsupported and not ctx.resilient_parsing:
            output.failure(self._unsupported[word])
            raise SystemExit(2)
        return super().resolve_command(ctx, args)

    def sections(self) -> tuple[list[Section], list[str]]:
        """Return the commands by heading, and the problems of plug-ins."""
        from dora_cli import plugin_commands

        found = {section.title: dict(section.commands) for section in self._sections}
        own = {*self._entries, *self._aliases, *self._unsupported}
        added, problems = plugin_commands.values(self._path, own, self._load)
        for word, command in added.items():
            panel = command.rich_help_panel
            title = panel if isinstance(panel, str) else "Plug-ins"
            found.setdefault(self._sections[0].title if self._path else title, {})[word] = command
        return [Section(title, commands) for title, commands in found.items() if commands], problems

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections, problems = self.sections()
        for section in sections:
            rows = [(word, _summary_of(entry)) for word, entry in section.commands.items()]
            with formatter.section(section.title):
                formatter.write_dl(rows)
        for problem in problems:
            formatter.write(f"\nWarning: {problem}\n")


def _summary_of(entry: Any) -> str:
    """Return the first sentence of a command's help; imports its module."""
    if isinstance(entry, Group):
        return entry.help
    text: str = _load("", entry).get_short_help_str(limit=200)
    return text.partition(";")[0]


def _load(name: str, entry: Any, path: str = "") -> Any:
    """Return the command of a function, a group, an application, or their place `MODULE:NAME`."""
    if isinstance(entry, str):
        module, _, found = entry.partition(":")
        entry = getattr(import_module(module), found)
    if isinstance(entry, Group):
        sections = [Section("Commands", entry.commands)]
        return LazyGroup(
            sections=sections,
            aliases={},
            unsupported={},
            path=path,
            name=name,
            help=entry.help,
            rich_help_panel=entry.heading,
            rich_markup_mode=None,
        )
    return command_for(name, entry)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dora {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Build, run and monitor dataflows: graphs of nodes that exchange Arrow arrays."""


def create_application() -> Any:
    """Return the root command; imports no command module."""
    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich costs 30 ms and draws boxes that grep cannot match
        context_settings=dict(HELP),
    )
    app.callback()(_root)
    if COMPLETION_VARIABLE in os.environ:  # set by the script of `dora completion`
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    return typer.main.get_command(app)


def main(arguments: Sequence[str]) -> int:
    """Run `dora ARGUMENTS`; return 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    output.prepare_streams()
    try:
        create_application().main(args=list(arguments), prog_name="dora")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except Exception as error:  # noqa: BLE001 - the outermost frame of a command
        if COMPLETION_VARIABLE in os.environ:
            return 1  # without a message, which the shell would show
        from dora_cli import errors
        from dora_config.frozen import is_interrupt

        if is_interrupt(error):
            raise KeyboardInterrupt from None
        return errors.report(error)
    finally:
        finish()
        gc.freeze()  # no collection of these objects while the interpreter shuts down
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
