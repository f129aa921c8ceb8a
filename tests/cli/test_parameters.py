"""Values of parameters are converted as by typer, without its pydantic."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from dora_cli.parameters import QuickCommand, QuickParameters


class Colour(StrEnum):
    RED = "red"
    BLUE = "Blue"


def _half(text: str) -> float:
    if text == "x":
        raise typer.BadParameter("not a number")
    return float(text) / 2


def _show(
    word: str,
    number: Annotated[int, typer.Option(min=1, max=9)] = 3,
    plain: Annotated[int | None, typer.Option()] = None,
    flag: Annotated[bool, typer.Option("--flag")] = False,
    colour: Annotated[Colour, typer.Option(case_sensitive=False)] = Colour.RED,
    exact: Annotated[Colour | None, typer.Option()] = None,
    half: Annotated[float, typer.Option(parser=_half)] = "8",  # type: ignore[assignment]
    ratio: Annotated[float, typer.Option()] = 0.5,
    many: Annotated[list[str] | None, typer.Option()] = None,
    path: Annotated[Path | None, typer.Option()] = None,
    file: Annotated[Path, typer.Option()] = Path(),
    attach: Annotated[bool | None, typer.Option("--attach/--detach")] = None,
    offline: Literal["run", "wait"] = "run",
) -> None:
    print([word, number, plain, flag, colour, exact, half, ratio, many])
    print([path, file, attach, offline])


def _run(cls: Any, *words: str) -> tuple[int, str]:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=cls)(_show)
    done = CliRunner().invoke(app, ["w", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--number 9 --plain -12 --flag --colour BLUE --half 3 --ratio 2.5 --many a --many b",
        "--exact Blue",
        "--number 0",
        "--number 10",
        "--number x",
        "--number 1_0",
        "--number ٣",
        "--plain 99999999999999999999999",
        "--plain 1.0",
        "--colour green",
        "--exact blue",
        "--half x",
        "--ratio x",
        "--path a --file b --attach --offline wait",
        "--file / --detach --offline run",
        "--file=",
        "--file \udcff",
        "--offline no",
    ],
)
def test_values_and_errors_are_those_of_typer(line: str) -> None:
    assert _run(QuickCommand, *line.split()) == _run(None, *line.split())


def test_commands_are_quick() -> None:
    assert issubclass(QuickCommand, QuickParameters)
