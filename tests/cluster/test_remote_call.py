"""The program for other machines, run by the oldest Python that is here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.cluster.installation import LocalMachine
from support.sources import packaged_sources

from dora_cluster import remote_call
from dora_cluster.connection import FinishedCommand
from dora_cluster.errors import RemoteTimeout
from dora_cluster.remote_call import MachineProblem, call, program

OLDEST = min(
    (found for minor in range(11, 20) if (found := shutil.which(f"python3.{minor}"))),
    key=lambda path: int(path.rpartition(".")[2]),
    default=sys.executable,
)


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    """A machine whose `python3` is the oldest one."""
    home = tmp_path / "robot"
    programs = tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec {OLDEST} "$@"\n')
    (programs / "python3").chmod(0o755)
    return LocalMachine(home, path=f"{programs}:/usr/bin:/bin")


def test_modules_import_the_standard_library_only() -> None:
    shared = {f"dora_config.{name.removesuffix('.py')}" for name in remote_call.SHARED}
    modules = [
        one
        for one in packaged_sources()
        if one.module in shared or ".remote_program." in f"{one.module}."
    ]
    assert len(modules) > len(shared) + 5
    wrong = [
        f"{source.name}:{line}: {name}"
        for source in modules
        for line, name in source.imports(at_run_time=False)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith("dora_cluster.remote_program")
        and not name.startswith(tuple(shared))
    ]
    assert not wrong


def test_program_is_the_same_each_time() -> None:
    first = program()
    program.cache_clear()
    assert program() == first


def test_every_module_runs_on_the_oldest_python(machine: LocalMachine) -> None:
    home = str(machine.home)
    facts = call(
        machine, "daemon.facts", name="r", unit="dora-daemon-r", dora=None, coordinator="127.0.0.1"
    )
    assert facts["home"] == home
    assert facts["token"] is None
    assert call(machine, "versions.probe", prefix="~/versions", link="~/dora")["trees"] == []
    assert call(machine, "network.ping", targets=[], secret="s") == {"pings": {}}
    assert call(machine, "coordinator.copy_store", version="1") == {"copy": None}
    assert isinstance(call(machine, "existing_daemons.survey")["daemons"], list)
    part = call(machine, "versions.partial", sha256="0")["path"]
    assert part.startswith(f"{home}/.cache/dora/archives/0.")
    call(machine, "versions.discard", path=part)
    assert [path for path in machine.home.rglob("*") if not path.is_dir()] == []


def test_problem_is_raised_with_the_name_of_the_machine(machine: LocalMachine) -> None:
    with pytest.raises(MachineProblem, match=r"^robot \(local\): version 7 does not exist in "):
        call(machine, "versions.switch", prefix="~/v", link="~/dora", name="7")
    with pytest.raises(MachineProblem, match=r"robot .*: `versions\.x` ended .*AttributeError"):
        call(machine, "versions.x")


@pytest.fixture
def old_machine(tmp_path: Path) -> LocalMachine:
    """A machine on whose PATH each Python is too old."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = "#!/bin/sh\n[ $1 = --version ] && echo Python 3.10.12\nexit 97\n"
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return LocalMachine(tmp_path, path=f"{folder}:/bin")


def test_machine_without_a_python_that_is_new_enough(old_machine: LocalMachine) -> None:
    with pytest.raises(
        MachineProblem,
        match=r"needs Python 3\.11 or newer there, found: Python 3\.10\.12; .*uv python install",
    ):
        call(old_machine, "existing_daemons.survey")


def test_a_python_of_uv_is_found_in_the_home(old_machine: LocalMachine) -> None:
    """`uv python install` writes links there, which SSH sessions may not have on PATH."""
    own = old_machine.home / ".local" / "bin" / "python3.12"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert isinstance(call(old_machine, "existing_daemons.survey"), dict)


def test_login_shell_that_refuses_commands_is_named(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_call, "command_words", lambda _command: ["sh", "-c", "exit 1"])
    monkeypatch.setattr(remote_call, "_SHELL_TEST", ["sh", "-c", "echo This account is locked."])
    with pytest.raises(MachineProblem, match=r"login shell .* \(it printed: \"This account is lo"):
        call(machine, "existing_daemons.survey")


def test_time_limit_names_the_request(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_out(*_: object, **__: object) -> FinishedCommand:
        raise RemoteTimeout("robot", "`sh -c ... 34567 daemon.facts` did not end in time")

    monkeypatch.setattr(machine, "run", time_out)
    with pytest.raises(RemoteTimeout, match=r"`daemon.tail` did not end in time and may still run"):
        call(machine, "daemon.tail", name="r", lines=1)
