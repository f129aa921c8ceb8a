"""The command `dora hello`: parameters and help as Typer reads them."""

from typing import Annotated

import typer


def hello(
    name: Annotated[str, typer.Argument(help="Who is greeted.")],
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False,
) -> None:
    """Greet someone."""
    text = f"hello {name}"
    print(text.upper() if loud else text)
