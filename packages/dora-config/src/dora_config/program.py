"""Commands from functions, whose parameters are arguments and options as Typer reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import typer

from dora_config.errors import InvalidId

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
