"""The commands of `dora` that are functions, and their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from dora_cli.registry import UNSUPPORTED_OPTIONS
from dora_config.program import command_of

_OPTIONAL_VALUE = "--exit-when-nodes-finish"
"""Option whose value may be left out, which means `true`."""


class Command(TyperCommand):
    """Command whose errors explain options of dora-rs, and how to name a dataflow."""

    unsupported: ClassVar[Mapping[tuple[str, str], str]] = UNSUPPORTED_OPTIONS
    """Errors for options of dora-rs that do not exist here, by command and option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word in takewhile(lambda word: word != "--", args):
            reason = self.unsupported.get((ctx.info_name, word.partition("=")[0]))
            if reason is not None and ctx.parent is not None and ctx.parent.parent is None:
                ctx.fail(reason)
        if any(_OPTIONAL_VALUE in param.opts for param in self.params):
            args = [f"{word}=true" if word == _OPTIONAL_VALUE else word for word in args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if getattr(error, "code", None) == "ambiguous":
                error.args = (f"{error}{self._how_to_name(ctx)}", *error.args[1:])
            raise

    def _how_to_name(self, ctx: Any) -> str:
        """Return the syntax for the name of a dataflow; empty if this command has none."""
        for param in self.params:
            if param.name in ("dataflow", "attach"):
                is_option = param.param_type_name == "option"
                how = f"{param.opts[0]} NAME" if is_option else f"{ctx.command_path} NAME"
                return f" (`{how}`)"
        return ""


def function_command(name: str, function: Callable[..., None], **settings: Any) -> Any:
    """Return the command of a function; `settings` are those of `typer.Typer.command`."""
    return command_of(name, function, **{"cls": Command, **settings})


class CommandGroup(TyperGroup):
    """Group that prints its help without a command, and suggests one for a misspelled name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.no_args_is_help = not self.invoke_without_command
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            import difflib

            close = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"no such command {word!r}{hint}")
        return super().resolve_command(ctx, args)


def command_for(name: str, entry: Any) -> Any:
    """Return the command of a function or an application; a command is returned as it is."""
    if isinstance(entry, TyperCommand | TyperGroup):
        return entry
    if isinstance(entry, typer.Typer):
        return _of_application(name, entry)
    return function_command(name, entry)


def _of_application(name: str, app: typer.Typer) -> Any:
    app.rich_markup_mode = None  # like the commands of dora itself
    app.info.cls = app.info.cls or CommandGroup
    is_group = len(app.registered_commands) != 1 or app.registered_groups
    command: Any = get_group(app) if is_group or app.registered_callback else _single(app)
    command.name = name
    if isinstance(app.rich_help_panel, str):
        command.rich_help_panel = app.rich_help_panel
    return command


def _single(app: typer.Typer) -> Any:
    """Return the only command, without the options that install a completion."""
    plain = typer.Typer(add_completion=False, rich_markup_mode=None)
    plain.registered_commands = app.registered_commands
    return get_command(plain)
