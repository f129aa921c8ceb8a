"""Values of parameters are converted as by typer, without its pydantic."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from dora_cli.parameters import QuickCommand, QuickParameters, declare


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
    style: Annotated[Literal["a", "B"] | None, typer.Option(case_sensitive=False)] = None,
) -> None:
    print([word, number, plain, flag, colour, exact, half, ratio, many])
    print([path, file, attach, offline, style])


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
        "--style A",
        "--style b --offline RUN",
    ],
)
def test_values_and_errors_are_those_of_typer(line: str) -> None:
    code, text = _run(None, *line.split())
    # typer prints the prefix of pydantic, and a full stop
    expected = re.sub(r"Value error, (.*)\.$", r"\1", text, flags=re.MULTILINE)
    assert _run(QuickCommand, *line.split()) == (code, expected)


def test_an_error_has_no_words_of_pydantic() -> None:
    shown = _run(QuickCommand, "--offline", "no")[1]
    # Versions of Typer without pydantic end the sentence with a full stop.
    assert shown.rstrip(".\n").endswith(
        "Invalid value for '--offline': 'no' is not one of 'run', 'wait'"
    )


def test_commands_are_quick() -> None:
    assert issubclass(QuickCommand, QuickParameters)


def test_a_docstring_declares_the_parameters_without_help() -> None:
    def show(
        folder: Path,
        name: Annotated[str, ":--name: Its name."] = "n",
        attach: bool | None = None,
        size: Annotated[int, typer.Option(min=1)] | None = None,
        extra: str = "",
    ) -> None:
        """Show a folder.

        It is not changed.

        :DIR: The folder,
            in two lines.
        :--attach/--detach, -A: Whether: yes or no.
        :--size, -s N: At most this.
        :--extra: More.
        """
        print(folder, name, attach, size, extra)

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=QuickCommand)(declare(show))
    assert CliRunner().invoke(app, ["d", "-A", "-s", "2"]).output == "d n True 2 \n"
    assert CliRunner().invoke(app, ["d", "-s", "0"]).exit_code == 2
    shown = CliRunner().invoke(app, ["--help"]).output
    for text in ("It is not changed.\n", "The folder, in two lines.", "Whether: yes or no.", "-s"):
        assert text in shown
    assert "\n  :" not in shown


def test_a_parameter_that_is_not_declared_is_an_error() -> None:
    def show(folder: Path, more: bool = False) -> None:
        """Show a folder.

        :DIR: The folder.
        """

    with pytest.raises(ValueError, match="argument 2 is shorter"):
        declare(show)
