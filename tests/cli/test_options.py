"""Values that several commands parse."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from support.command_line import Dora
from support.command_tree import all_lines, command_of

from dora_cli import options, registry

DORA_RS = {
    "clean": "-f --format -q --quiet",
    "cluster restart": "",
    "doctor": "--dataflow",
    "down": "--force",
    "inspect top": "--refresh-interval --once",
    "list": "-f --format --status --name --sort-by -q --quiet",
    "logs": "-n --node --all-nodes --tail -f --follow --local --since --until --level --log-format"
    " --log-filter --grep",
    "node list": "-d --dataflow -f --format -q --quiet",
    "node remove": "-d --dataflow --grace",
    "node replace": "-d --dataflow --from-yaml --grace",
    "node restart": "-d --dataflow --grace",
    "node stop": "-d --dataflow --grace",
    "param list": "-d --dataflow --format",
    "restart": "-n --name --grace-duration -f --force",
    "start": "-n --name --attach --detach --hot-reload --uv --debug --exit-when-nodes-finish --env",
    "status": "--dataflow -f --format",
    "stop": "-n --name --all --grace-duration -f --force",
    "system status": "--dataflow -f --format",
    "topic echo": "-d --dataflow --format --count --duration",
    "topic hz": "-d --dataflow --window --duration",
    "topic list": "-d --dataflow --format",
}
"""Options of commands of dora-rs 1.1, without those that name a coordinator."""


@pytest.mark.parametrize("text", ["true", "1", "YES"])
def test_true(text: str) -> None:
    assert options.optional_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "0", "No"])
def test_false(text: str) -> None:
    assert options.optional_boolean(text) is False


def test_a_missing_boolean_is_none_and_another_word_is_a_usage_error() -> None:
    assert options.optional_boolean(None) is None
    with pytest.raises(typer.BadParameter, match="'maybe': expected true or false"):
        options.optional_boolean("maybe")


@pytest.mark.parametrize("text", ["", "fast", "[" * 100_000, '"\\ud800"'])
def test_json_that_is_malformed_or_not_serializable(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        options.json_value(text)


def test_advice_about_quotes_is_given_on_the_command_line_only(tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text("fast")
    with pytest.raises(ValueError, match="quote text twice"):
        options.json_value("fast")
    with pytest.raises(ValueError, match=r"it is not valid JSON \(.*\)$"):
        options.json_file(str(file))


def test_json() -> None:
    assert options.json_value('{"a": [1, null]}') == options.Json({"a": [1, None]})


def test_a_letter_has_one_meaning_in_commands_of_the_core() -> None:
    meanings: dict[str, set[str]] = {}
    for line in (one for one in all_lines() if one.split()[0] in registry.COMMANDS):
        command, context = command_of(line)
        for param in command.get_params(context):
            for letter in (word for word in param.opts if not word.startswith("--")):
                meanings.setdefault(letter, set()).add(param.opts[0])
    # as in dora-rs
    assert {letter: words for letter, words in meanings.items() if len(words) > 1} == {
        "-f": {"--format", "--follow", "--force"},
        "-n": {"--name", "--node"},
    }


def test_a_grace_is_the_time_from_stop_to_sigterm() -> None:
    found = {}
    for line in all_lines():
        command, context = command_of(line)
        for param in command.get_params(context):
            if any("grace" in word for word in param.opts):
                found[line] = (param.opts, param.help.partition(" (")[0].rstrip("."))
    assert set(found) == {
        *("stop", "restart", "node stop", "node restart", "node remove", "node replace")
    }
    grace = ["--grace", "--grace-duration"], "Time from STOP to SIGTERM"
    assert all(one == grace for one in found.values())


@pytest.mark.parametrize("line", DORA_RS)
def test_options_of_dora_rs_are_accepted(line: str) -> None:
    command, _ = command_of(line)
    names = {word for param in command.params for word in (*param.opts, *param.secondary_opts)}
    assert {*DORA_RS[line].split()} <= names


@pytest.mark.parametrize("line", all_lines())
def test_help_has_every_option_and_a_wrong_one_is_named(dora: Dora, line: str) -> None:
    command, _ = command_of(line)
    if command.context_settings.get("ignore_unknown_options"):  # it is another program's
        return
    shown = dora(*line.split(), "--help").out
    for param in command.params:
        if not param.hidden and param.param_type_name == "option":
            assert param.help
            assert all(word in shown for word in (*param.opts, *param.secondary_opts))
    wrong = dora(*line.split(), "--no-such-option")
    assert wrong.code == 2
    assert "No such option: --no-such-option" in wrong.err


@pytest.mark.parametrize("words", [words for words in registry.PHRASES if words[0] != "record"])
def test_other_names_of_commands_are_hidden(words: tuple[str, str]) -> None:
    assert " ".join(words) not in all_lines()
    command, _ = command_of(" ".join(words))
    assert command.callback is not None
