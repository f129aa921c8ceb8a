"""The application: words to a command, an exception to a message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dora_cli import output, registry
from dora_cli._version import __version__

COMPLETION_VARIABLE = "_DORA_COMPLETE"

GC_THRESHOLD = 20_000
"""Objects between two garbage collections: imports make many, none of them garbage, and the usual
700 cost a tenth of the time until nodes are spawned."""


class LazyCommands(TyperGroup):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(registry.MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            import difflib

            close = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"no such command {word!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in registry.SECTIONS:
            rows = [
                (word, self.get_command(ctx, word).get_short_help_str(limit=200).partition(";")[0])
                for word in section.commands
            ]
            with formatter.section(section.title):
                formatter.write_dl(rows)


@cache
def _command(name: str) -> Any:
    """The command of that name, which click asks for several times; None when there is none."""
    module = registry.module_of(name)
    if module is None:
        return None
    command = typer.main.get_command(import_module(module).app)
    command.name = name
    return command


def _print_version(asked: bool) -> None:
    if asked:
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
    """Build, run and watch dataflows: graphs of nodes that exchange Arrow arrays."""


def create_application() -> Any:
    """The root command; importing it imports no command."""
    app = typer.Typer(
        cls=LazyCommands,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text: rich costs 30 ms and draws boxes nobody can grep
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    if COMPLETION_VARIABLE in os.environ:  # the shell asks, through the script of `completion`
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    return typer.main.get_command(app)


def main(arguments: Sequence[str]) -> int:
    """Run `dora ARGUMENTS`; the exit code: 0 well, 1 failed, 2 wrong usage, 130 interrupted."""
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    output.prepare_streams()
    try:
        create_application().main(args=list(arguments), prog_name="dora")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except Exception as error:  # noqa: BLE001 - the edge of every command
        from dora_cli import errors

        return errors.report(error)
    finally:
        output.finish()
        gc.freeze()  # so that the interpreter's end, which frees all, does not search it first
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
