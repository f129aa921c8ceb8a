"""Commands made from functions, whose parameters Typer reads as arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import typer

from dora_config.errors import InvalidId
from dora_config.streams import finish, report_unwritten

T = TypeVar("T")

HELP: Final[Mapping[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
"""Context settings of a program; its subcommands inherit them."""


def command_of(name: str, function: Callable[..., None], **settings: Any) -> Any:
    """Return the command of a function; `settings` are those of `typer.Typer.command`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, **settings)(function)
    return typer.main.get_command(app)


def run(command: Any, arguments: Sequence[str] | None, name: str) -> int:
    """Run a command with arguments, by default those of the process; return the exit code."""
    try:
        command.main(args=arguments, prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except OSError:
        if (problem := finish()) is None:
            raise
        return report_unwritten(problem)
    return 0


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return `parse` for an option: its ValueError or InvalidId becomes a usage error."""

    def parser(text: str) -> T:
        if not isinstance(text, str):  # an already parsed default
            return text
        try:
            return parse(text)
        except (ValueError, InvalidId) as error:
            raise typer.BadParameter(str(error)) from None

    parser.__name__ = parse.__name__
    return parser
