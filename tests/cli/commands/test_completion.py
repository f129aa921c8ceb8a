"""`dora completion`: scripts that shells accept, and completions."""

from __future__ import annotations

import subprocess

import pytest
from support.command_line import Dora
from support.dora import run_dora


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script(dora: Dora, shell: str) -> None:
    shown = dora("completion", shell)
    assert shown.code == 0
    assert "_DORA_COMPLETE" in shown.out


def test_bash_accepts_the_script(dora: Dora) -> None:
    script = dora("completion", "bash").out
    subprocess.run(["bash", "-n", "-c", script], check=True)


def test_the_default_is_the_login_shell(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert dora("completion").out == dora("completion", "zsh").out
    monkeypatch.setenv("SHELL", "/bin/odd")
    shown = dora("completion")
    assert shown.code == 2
    assert "give one of bash, zsh, fish, powershell" in shown.err


@pytest.mark.parametrize(
    ("words", "answers"),
    [("dora r", ["run"]), ("dora run --stop", ["--stop-after"]), ("dora self up", ["update"])],
)
def test_completions(words: str, answers: list[str]) -> None:
    environment = {
        "_DORA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    shown = run_dora(env=environment)
    assert set(answers) <= set(shown.stdout.split())
