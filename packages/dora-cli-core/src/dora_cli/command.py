"""The commands of `dora` that are functions, and their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup

from dora_cli.registry import UNSUPPORTED_OPTIONS
from dora_config.program import command_of

_OPTIONAL_VALUE = "--exit-when-nodes-finish"
"""Option whose value may be left out, which means `true`."""


class Command(TyperCommand):
    """Command that explains options that it lacks, and how it takes the name of a dataflow."""

    unsupported: ClassVar[Mapping[tuple[str, str], str]] = UNSUPPORTED_OPTIONS
    """Why a command lacks an option of dora-rs."""

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
        """Return how this command takes the name of a dataflow."""
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
