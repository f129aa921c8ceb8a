"""Commands of plug-ins: used, listed and completed; a broken one disturbs no other command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Dora
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_cli import plugin_commands
from dora_cli.main import create_application
from dora_config import plugins
from dora_config.installation import uninstall_command, wheel_command
from dora_config.plugins import Plugins

FUNCTION = """\
def hello(name: str, loud: bool = False) -> None:
    "Greet someone; more."
    print(f"hello {name}".upper() if loud else f"hello {name}")
"""
GROUP = """\
import typer
app = typer.Typer(help="Look at farms.")

@app.command()
def cows(number: int = 3) -> None:
    "Count cows."
    print(number)

@app.command()
def fail() -> None:
    raise typer.Exit(4)
"""
LAZY = """\
from typing import Annotated
import typer
from dora_cli.registry import Group

FARM = Group("Look at farms.", {"cows": "plug_lazy:cows", "broken": "none:none"}, "Files")

def cows(number: Annotated[int, typer.Option("--number", "-n", help="How many.")] = 3) -> None:
    '''Count cows.'''
    print(number)
"""
ONE = """\
import typer
app = typer.Typer()

@app.command(rich_help_panel="Files")
def plan(verbose: bool = False) -> None:
    "Draw a plan."
    print(verbose)
"""


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    for name in ("plug_function", "plug_group", "plug_lazy", "plug_one", "plug_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield from plugin_wheels(tmp_path, monkeypatch)


def test_a_function_is_a_command(dora: Dora, wheels: PluginWheels) -> None:
    wheels.install("a", {"dora.commands": {"hello": "plug_function:hello"}}, plug_function=FUNCTION)
    assert dora("hello", "you", "--loud").out == "HELLO YOU\n"
    assert dora("hello").code == 2
    for words in (["hello", "--help"], ["help", "hello"]):
        shown = dora(*words)
        assert shown.code == 0
        assert shown.out.startswith("Usage: dora hello [OPTIONS]")
    assert "Plug-ins:\n  hello" in (shown := dora("--help")).out
    assert "Greet someone" in shown.out


def test_an_application_is_a_group(dora: Dora, wheels: PluginWheels) -> None:
    wheels.install("a", {"dora.commands": {"farm": "plug_group:app"}}, plug_group=GROUP)
    assert dora("farm", "cows", "--number", "5").out == "5\n"
    assert dora("farm", "fail").code == 4
    assert dora("farm").err.startswith("Usage: dora farm [OPTIONS] COMMAND")
    assert "no such command 'cowz', did you mean 'cows'?" in dora("farm", "cowz").err
    shown = dora("help", "farm").out
    assert shown.startswith("Usage: dora farm [OPTIONS] COMMAND")
    assert "completion" not in shown


def test_a_group_imports_the_command_that_is_named(dora: Dora, wheels: PluginWheels) -> None:
    wheels.install("a", {"dora.commands": {"farm": "plug_lazy:FARM"}}, plug_lazy=LAZY)
    assert dora("farm", "cows", "-n", "5").out == "5\n"
    assert "How many" in dora("help", "farm", "cows").out
    files = dora("--help").out.partition("\nFiles:\n")[2].partition("\n\n")[0]
    assert "Look at farms." in files


def test_a_name_of_two_words_is_a_command_of_a_group(dora: Dora, wheels: PluginWheels) -> None:
    names = {"self hello": "plug_function:hello", "node list": "json:loads"}
    wheels.install("a", {"dora.commands": names}, plug_function=FUNCTION)
    assert dora("self", "hello", "you").out == "hello you\n"
    assert "\n  hello " in dora("self", "--help").out
    assert "hello" not in dora("--help").out
    assert dora("node", "list", "--help").out.startswith("Usage: dora node list [OPTIONS]")
    assert "WARN  plug-ins: the command `dora node list` of the plug-in a" in dora("doctor").out


def test_an_application_with_one_command_is_that_command(dora: Dora, wheels: PluginWheels) -> None:
    wheels.install("a", {"dora.commands": {"plan": "plug_one:app"}}, plug_one=ONE)
    assert dora("plan", "--verbose").out == "True\n"
    assert "completion" not in dora("plan", "--help").out
    files = dora("--help").out.partition("\nFiles:\n")[2].partition("\n\n")[0]
    assert "plan" in files


def test_an_application_names_its_heading(dora: Dora, wheels: PluginWheels) -> None:
    module = GROUP.replace('help="', 'rich_help_panel="Files", help="')
    wheels.install("a", {"dora.commands": {"farm": "plug_group:app"}}, plug_group=module)
    files = dora("--help").out.partition("\nFiles:\n")[2].partition("\n\n")[0]
    assert "farm" in files


def test_a_broken_plug_in_disturbs_no_other_command(dora: Dora, wheels: PluginWheels) -> None:
    wheels.install("bad", {"dora.commands": {"wrong": "plug_broken:app"}}, plug_broken="1 / 0")
    wheels.install("old", {"dora.commands": {"past": "json:loads"}}, interface="0")
    wheels.install("run", {"dora.commands": {"run": "json:loads"}})
    assert dora("run", "--help").out.startswith("Usage: dora run")
    shown = dora("wrong")
    assert (shown.code, shown.out) == (1, "")
    assert "cannot be imported from plug_broken (ZeroDivisionError: " in shown.err
    assert "is for version 0" in dora("past").err
    listing = dora("--help")
    assert listing.code == 0
    assert "Warning: the command `dora wrong` of the plug-in bad 0.3 cannot" in listing.out
    assert "Warning: the plug-in old 0.3 is for version 0" in listing.out
    assert "did you mean 'run'?" in dora("rnu").err
    report = dora("doctor").out
    for wheel in ("bad", "old", "run"):
        assert f"WARN  plug-ins: the {'plug-in old' if wheel == 'old' else 'command'}" in report
        assert f"plug-in {wheel} 0.3" in report


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("command = 5", "TypeError: 5 is not a callable object"),
        (
            "from __future__ import annotations\ndef command(a: Missing) -> None: ...",
            "NameError: name 'Missing' is not defined",
        ),
        ("def command(a: int | str = 1) -> None: ...", "AssertionError: "),
    ],
)
def test_a_command_that_cannot_be_made_disturbs_no_other_one(
    dora: Dora, wheels: PluginWheels, module: str, reason: str
) -> None:
    wheels.install("bad", {"dora.commands": {"wrong": "plug_broken:command"}}, plug_broken=module)
    problem = f"the command `dora wrong` of the plug-in bad 0.3 cannot be used ({reason}"
    for words in (["--help"], ["help"], ["doctor"]):
        shown = dora(*words)
        assert problem in shown.out
        assert shown.code == 0 or words == ["doctor"]
    for words in (["wrong"], ["wrong", "--help"]):
        shown = dora(*words)
        assert (shown.code, shown.out) == (1, "")
        assert problem in shown.err
    assert wheels.completions("dora lis") == ["list"]


def test_a_command_with_a_name_of_dora_is_reported_as_ignored(
    dora: Dora, wheels: PluginWheels
) -> None:
    names = dict.fromkeys(("list", "ps", "hub", "node list", "cluster"), "json:loads")
    wheels.install("dora-acme", {"dora.commands": names})
    report = dora("doctor").out
    for group, words in (("", ("list", "ps", "hub", "cluster")), ("node", ("list",))):
        shown = dora(*group.split(), "--help").out
        for word in words:
            name = f"{group} {word}".lstrip()
            problem = (
                f"the command `dora {name}` of the plug-in dora-acme 0.3 is ignored, because dora"
                f" has its own; remove it: {uninstall_command('dora-acme')}"
            )
            assert f"Warning: {problem}\n" in shown
            assert f"WARN  plug-ins: {problem}\n" in report


def test_a_defect_of_a_command_names_the_plug_in(dora: Dora, wheels: PluginWheels) -> None:
    module = "def hello() -> None:\n    {}['key']\n"
    wheels.install("a", {"dora.commands": {"hello": "plug_function:hello"}}, plug_function=module)
    shown = dora("hello")
    assert (shown.code, shown.out) == (1, "")
    assert "unexpected error in the plug-in a 0.3; please report it to its author\n" in shown.err


def test_a_missing_file_of_a_command_is_one_line(dora: Dora, wheels: PluginWheels) -> None:
    module = "def hello() -> None:\n    open('nothing-here')\n"
    wheels.install("a", {"dora.commands": {"hello": "plug_function:hello"}}, plug_function=module)
    shown = dora("hello")
    assert (shown.code, shown.out) == (1, "")
    where = "(in the plug-in a 0.3)"
    assert shown.err == f"[ERROR]\nnothing-here: No such file or directory {where}\n"


def test_commands_of_plug_ins_are_completed(
    wheels: PluginWheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.install("a", {"dora.commands": {"hello": "plug_function:hello"}}, plug_function=FUNCTION)
    wheels.install("bad", {"dora.commands": {"help-me": "plug_broken:app"}}, plug_broken="1 / 0")
    assert wheels.completions("dora hel") == ["hello", "help"]
    assert wheels.completions("dora hello --l") == ["--loud"]
    wheels.install("same", {"dora.commands": {"ls": "plug_function:hello"}})  # a hidden name
    assert wheels.completions("dora l") == ["list", "logs"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dora coord", ["coordinator"]),
        ("dora daemon --mach", ["--machine-id"]),
        ("dora coordinator --int", ["--interface"]),
        ("dora help valid", ["validate"]),
        ("dora help node li", ["list"]),
        ("dora help nope x", []),
        ("dora nope x", []),
        ("dora hub x", []),
        ("dora cluster nope x", []),
        ("dora broken x", []),
    ],
)
def test_a_completion_offers_words_and_prints_no_error(
    wheels: PluginWheels, line: str, offered: list[str]
) -> None:
    wheels.install("bad", {"dora.commands": {"broken": "plug_broken:app"}}, plug_broken="1 / 0")
    assert wheels.completions(line) == offered


def test_a_missing_plug_in_of_this_project_is_named(
    dora: Dora, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: Plugins([], {}))
    shown = dora("ros2", "topics")
    assert shown.code == 1
    assert shown.err == (
        "[ERROR]\nthe command `dora ros2` is part of the wheel dora-ros2, which is not installed"
        f" for {sys.executable}\n  install it: {wheel_command('dora-ros2')}\n"
    )


def test_a_second_name_of_a_command_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: Plugins([], {}))
    application = create_application()
    context = application.make_context("dora", ["record"], resilient_parsing=True)  # a completion
    with pytest.raises(Exception, match="no such command 'record'"):
        application.resolve_command(context, ["record", "fetch"])


def test_a_command_of_dora_reads_no_metadata(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_commands, "find", None)
    monkeypatch.setattr(plugins, "installed", None)
    assert dora("completion", "bash").code == 0
    assert dora("node", "list", "--help").code == 0
