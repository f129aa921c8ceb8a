"""The commands of `dora` that are functions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from typer.core import TyperCommand

from dora_cli.registry import UNSUPPORTED_OPTIONS
from dora_config.program import command_of

_OPTIONAL_VALUE = "--exit-when-nodes-finish"
"""Option whose value may be left out, which means `true`."""


class Command(TyperCommand):
    """Command that explains options that it lacks, and how it takes the name of a dataflow."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word in takewhile(lambda word: word != "--", args):
            reason = UNSUPPORTED_OPTIONS.get((ctx.info_name, word.partition("=")[0]))
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
