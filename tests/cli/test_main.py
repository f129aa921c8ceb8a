"""Lazy loading of commands; messages and exit codes of exceptions."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import SchemaError
from support.command_line import Dora

from dora_cli import main as main_module, registry
from dora_cli._version import __version__
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.errors import CommandFailed, describe
from dora_config import launcher
from dora_config.errors import ConfigError, DoraError, Problem


def test_help_lists_every_command_under_its_heading(dora: Dora) -> None:
    shown = dora("--help")
    assert shown.code == 0
    for section in registry.SECTIONS:
        if section.commands:
            assert f"\n{section.title}:\n" in shown.out
        for word in section.commands:
            assert f"\n  {word} " in shown.out


@pytest.mark.parametrize("word", sorted(registry.COMMANDS))
def test_every_command_has_help(dora: Dora, word: str) -> None:
    shown = dora(word, "-h")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: dora {word}")


@pytest.mark.parametrize(
    "words",
    ["", "run", "help", "topic", "topic echo", "self update", "ls", "daemon"],
)
def test_help_command_equals_help_option(dora: Dora, words: str) -> None:
    shown = dora("help", *words.split())
    assert (shown.code, shown.err) == (0, "")
    if words == "daemon":  # a command of another wheel
        assert shown.out.startswith("Usage: dora daemon [OPTIONS]")
    else:
        assert shown.out == dora(*words.split(), "--help").out


def test_a_group_without_a_command_prints_its_help(dora: Dora) -> None:
    for group in ("", "node"):
        shown = dora(*group.split())
        assert (shown.code, shown.out) == (2, "")
        assert shown.err == dora(*group.split(), "--help").out


@pytest.mark.parametrize("word", ["daemon", "coordinator", "list"])
def test_all_programs_have_the_same_help_and_errors(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert launcher.main([word, "-h"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: dora {word} [OPTIONS]\n\n  ")
    assert "\n\nOptions:\n  " in shown
    assert shown.rstrip().endswith("Show this message and exit.")
    assert launcher.main([word, "--no-such-option"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"Usage: dora {word} [OPTIONS]\nTry 'dora {word} ")
    assert "\nError: No such option: --no-such-option" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rnu", "no such command 'rnu', did you mean 'run'?"),
        ("zzz", "no such command 'zzz'\n"),
        ("node lst", "'list'"),
        ("node zzz", "zzz"),
        ("run flow", "`dora run` has no command 'flow'"),
        ("node list flow", "`dora node list` has no command 'flow'"),
    ],
)
def test_help_of_an_unknown_command_is_a_usage_error(dora: Dora, words: str, message: str) -> None:
    shown = dora("help", *words.split())
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err


@pytest.mark.parametrize("word", sorted(registry.UNSUPPORTED))
def test_commands_of_dora_rs_that_do_not_exist_name_a_replacement(dora: Dora, word: str) -> None:
    for more in ((), ("--help",), ("list", "x")):
        shown = dora(word, *more)
        assert (shown.code, shown.out) == (2, "")
        assert shown.err == f"[ERROR]\n{registry.UNSUPPORTED[word]}\n"


@pytest.mark.parametrize(("command", "option"), registry.UNSUPPORTED_OPTIONS)
def test_options_of_dora_rs_that_do_not_exist_name_a_replacement(
    dora: Dora, command: str, option: str
) -> None:
    for words in ((option, "x"), (f"{option}=x",)):
        shown = dora(command, "flow.yml", *words)
        assert (shown.code, shown.out) == (2, "")
        assert registry.UNSUPPORTED_OPTIONS[command, option] in shown.err


class SeveralRun:
    """A client of a coordinator with several dataflows."""

    def __enter__(self) -> SeveralRun:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        raise RequestFailed("several dataflows are running; name one of them: a, b", "ambiguous")


@pytest.mark.parametrize(
    ("words", "how"),
    [("stop", "dora stop NAME"), ("node info x", "--dataflow NAME")],
)
def test_how_to_name_one_of_several_dataflows(
    dora: Dora, monkeypatch: pytest.MonkeyPatch, words: str, how: str
) -> None:
    monkeypatch.setattr("dora_cli.coordinator.client.CoordinatorClient", lambda _: SeveralRun())
    shown = dora(*words.split())
    assert shown.code == 1
    assert shown.err.endswith(f"name one of them: a, b (`{how}`)\n")


def test_version(dora: Dora) -> None:
    assert dora("--version").out == f"dora {__version__}\n"


def test_an_unknown_command_suggests_a_close_one(dora: Dora) -> None:
    shown = dora("rnu")
    assert shown.code == 2
    assert "no such command 'rnu', did you mean 'run'?" in shown.err
    assert "no such command 'zzz'\n" in dora("zzz").err


def test_an_unknown_option_is_a_usage_error(dora: Dora) -> None:
    assert dora("run", "--nonsense", "x.yml").code == 2


def test_aliases_name_commands() -> None:
    for alias, word in registry.ALIASES.items():
        assert word in registry.COMMANDS
        assert alias not in registry.COMMANDS


def test_a_command_imports_no_other_command() -> None:
    program = (
        "import sys; from dora_cli.main import main; main(['completion', 'bash']);"
        "loaded = sorted(n for n in sys.modules if n.startswith('dora_cli.commands.'));"
        "heavy = ('rich', 'anyio', 'yaml', 'websockets', 'paramiko', 'pyarrow');"
        "print(loaded, [n for n in heavy if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "['dora_cli.commands.installation'] []\n"


def test_the_list_of_commands_imports_only_what_their_options_need() -> None:
    program = (
        "import sys; from dora_cli.main import main; main(['--help']);"
        "heavy = ('anyio', 'psutil', 'yaml', 'dora_config.dataflow.resolved',"
        " 'dora_config.protocol.runner_events', 'dora_config.protocol.snapshot');"
        "print([n for n in heavy if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def _raised(error: BaseException, cause: BaseException) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001 - returned to the test
        return caught


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (DoraError("it is wrong"), "it is wrong", 1),
        (CommandFailed(3), None, 3),
        (FileNotFoundError(2, "No such file or directory", "x.yml"), "x.yml: No such file or", 1),
        (ConfigError([Problem("f.yml", 3, 1, "a"), Problem("f.yml", 5, 2, "b")]),
         "f.yml:3:1: a\nf.yml:5:2: b", 1),
        (_raised(DoraError("top"), DoraError("bottom")), "top\n  caused by: bottom", 1),
        (_raised(DoraError("top: bottom"), OSError("bottom")), "top: bottom", 1),
        (ExceptionGroup("g", [DoraError("inner")]), "inner", 1),
        (ExceptionGroup("g", [DoraError("one"), DoraError("two")]), "one\ntwo", 1),
        (OSError(24, "Too many open files"), "Too many open files; raise the limit (", 1),
        (OSError(27, "File too large"), "File too large; raise the limit (`ulimit -f`), which ", 1),
        (OSError(24, "Too many open files", "f"), "f: Too many open files; raise ", 1),
        (OSError(11, "Resource temporarily unavailable"), "Resource temporarily unavailable; ", 1),
        (RuntimeError("can't start new thread"), "can't start new thread: too many ", 1),
        (RuntimeError("oops"), "unexpected error in dora; please report it\n", 1),
        (ZeroDivisionError("oops"), "unexpected error in dora; please report it\n", 1),
    ],
)  # fmt: skip
def test_message_and_exit_code_of_an_exception(
    error: BaseException, message: str | None, code: int
) -> None:
    found, exit_code = describe(error)
    assert exit_code == code
    if message is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(message)


def test_ctrl_c_while_a_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:  # as pydantic-core 2.50
        raise SchemaError('Error building "model" serializer:\n  KeyboardInterrupt: ')

    monkeypatch.setattr(main_module, "create_application", build)
    with pytest.raises(KeyboardInterrupt):
        main_module.main([])


def test_an_error_has_a_header_on_stderr(dora: Dora) -> None:
    shown = dora("validate", "missing.yml")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err == "[ERROR]\nmissing.yml does not exist; expected a dataflow file\n"
    shown = dora("validate", os.devnull)
    assert shown.err == f"[ERROR]\n{os.devnull} is not a regular file; expected a dataflow file\n"


def test_a_result_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dora_cli.main", "schema", "dataflow"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    reason = "standard output: No space left on device; free space on the disk of this computer"
    assert done.stderr == f"[ERROR]\n{reason}\n"


def test_every_command_has_a_function() -> None:
    for entry in registry.COMMANDS.values():
        for command in [entry] if isinstance(entry, str) else entry.commands.values():
            module, _, function = command.partition(":")
            assert callable(getattr(import_module(module), function))


def test_a_deleted_current_directory_is_reported(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = (
        f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
        "from dora_cli.main import main; raise SystemExit(main(['logs', '--local']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("the current directory no longer exists; change to another one\n")
