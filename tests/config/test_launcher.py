"""The `dora` script finds commands in installed wheels and reports missing wheels."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from dora_config import launcher
from dora_config._version import __version__
from dora_config.installation import wheel_command


def _install(monkeypatch: pytest.MonkeyPatch, **commands: Callable[[Sequence[str]], int]) -> None:
    """Simulate that only the wheels of these commands are installed."""
    packages = {launcher.COMMANDS[name].partition(".")[0] for name in commands}
    modules = {launcher.COMMANDS[name]: main for name, main in commands.items()}
    monkeypatch.setattr(launcher, "find_spec", lambda name: name if name in packages else None)
    monkeypatch.setattr(launcher, "import_module", lambda name: SimpleNamespace(main=modules[name]))


def test_the_version_without_stdout_is_not_an_error() -> None:
    words = [sys.executable, "-m", "dora_config.launcher", "--version"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["list"], ["daemon"], ["coordinator"]])
def test_an_account_without_a_home_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_entry(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert launcher.main(words) == 1
    shown = capsys.readouterr().err
    assert f"HOME is not set, and the account (uid {os.getuid()}) has no passwd entry" in shown
    assert "set HOME to a folder that the account can write" in shown


@pytest.mark.parametrize("words", [["--version"], ["coordinator", "--help"], ["daemon", "--help"]])
def test_a_result_that_cannot_be_written_is_an_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own code would be 120."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    command = [sys.executable, "-m", "dora_config.launcher", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr == "[ERROR]\nstandard output: No space left on device\n"
        both = subprocess.run(command, stdout=full, stderr=full, check=False)
    assert both.returncode == 1


def test_the_version_needs_no_wheel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch)
    assert launcher.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dora {__version__}\n"


def test_a_command_receives_the_rest_of_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def command(name: str, code: int) -> Callable[[Sequence[str]], int]:
        def run(words: Sequence[str]) -> int:
            seen.append((name, list(words)))
            return code

        return run

    _install(
        monkeypatch,
        cli=command("cli", 3),
        daemon=command("daemon", 4),
        coordinator=command("coordinator", 5),
    )
    assert launcher.main(["run", "x.yml"]) == 3
    assert launcher.main(["daemon", "--quiet"]) == 4
    assert launcher.main(["coordinator"]) == 5
    assert launcher.main([]) == 3
    assert seen == [
        ("cli", ["run", "x.yml"]),
        ("daemon", ["--quiet"]),
        ("coordinator", []),
        ("cli", []),
    ]


@pytest.mark.parametrize(
    ("words", "installed", "message"),
    [
        (
            ["daemon"],
            ["cli"],
            "[ERROR]\n`dora daemon` is part of the wheel dora-daemon, which is not installed for "
            f"{sys.executable}\n  install it: {wheel_command('dora-daemon')}\n",
        ),
        (
            ["nonsense"],
            ["daemon"],
            "[ERROR]\n`dora nonsense` is not installed here; most commands are in the"
            f" wheel dora-cli-core, which is not installed for {sys.executable}\n"
            f"  install it: {wheel_command('dora-cli-core')}\n  installed here: dora daemon\n",
        ),
        (
            ["ros2"],
            ["daemon"],
            "[ERROR]\n`dora ros2` is part of the wheel dora-ros2, which is not installed for "
            f"{sys.executable}\n  install it: {wheel_command('dora-cli-core')}\n"
            f"  install it: {wheel_command('dora-ros2')}\n  installed here: dora daemon\n",
        ),
    ],
)
def test_a_missing_wheel_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    installed: list[str],
    message: str,
) -> None:
    _install(monkeypatch, **dict.fromkeys(installed, lambda words: 0))
    assert launcher.main(words) == 1
    assert capsys.readouterr().err == message


def test_help_of_a_command_without_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[Sequence[str]] = []

    def daemon(words: Sequence[str]) -> int:
        received.append(words)
        return 0

    _install(monkeypatch, daemon=daemon)
    assert launcher.main(["help", "daemon"]) == 0
    assert received == [["--help"]]
    assert launcher.main(["help", "cluster"]) == 1
    assert "`dora cluster` is part of the wheel dora-cluster" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_help_without_the_command_line_names_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    _install(monkeypatch, daemon=lambda words: 0)
    assert launcher.main(words) == 0
    shown = capsys.readouterr()
    assert "\n  dora daemon\n" in shown.out
    assert "dora coordinator" not in shown.out
    assert "The wheel dora-cli-core adds" in shown.out
    assert wheel_command("dora-cli-core") in shown.out
    assert shown.err == ""


def test_ctrl_c_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: Sequence[str]) -> int:
        raise KeyboardInterrupt

    _install(monkeypatch, cli=interrupted)
    assert launcher.main(["run"]) == 130


def test_ctrl_c_ends_an_import(tmp_path: Path) -> None:
    """Also where a KeyboardInterrupt would be ignored."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "class Finalizer:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "Finalizer()\n"
        "main = len\n"
    )
    program = (
        "import signal, sys; from dora_config import launcher; sys.path.append(sys.argv[1]);"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a script may ignore it
        "launcher.COMMANDS['cli'] = 'interrupted'; launcher.main([])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGINT


def test_the_launcher_imports_neither_typer_nor_pydantic() -> None:
    program = (
        "import sys; from dora_config import launcher; launcher.main(['--version']);"
        "print([n for n in ('typer', 'pydantic', 'yaml', 'rich', 'anyio') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"


@pytest.mark.parametrize("name", launcher.COMMANDS)
def test_every_command_is_found(name: str) -> None:
    assert launcher.find_command(name) is not None
