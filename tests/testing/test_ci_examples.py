"""The examples for continuous integration: their commands, in a project of `dora new`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dora import DORA, run_dora
from support.sources import ROOT

PAGE = (ROOT / "docs/howto/testing-nodes.md").read_text()


def example(name: str) -> Any:
    """Return a file of the page."""
    found = re.search(rf'```yaml title="{re.escape(name)}"\n(.*?)```', PAGE, re.DOTALL)
    assert found is not None
    return yaml.load(found[1], yaml.BaseLoader)  # `on` is a text


def commands(name: str) -> list[str]:
    if name == ".gitlab-ci.yml":
        return list(example(name)["test"]["script"])
    steps = example(name)["jobs"]["test"]["steps"]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.integration
@pytest.mark.parametrize("name", [".github/workflows/test.yml", ".gitlab-ci.yml"])
def test_commands_of_an_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_dora("new", "greetings").succeeded()
    *_, install, test = commands(name)
    assert install == "pip install dora/packages/*"  # as the environment of these tests
    path = f"{DORA.parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/sh", "-ec", test.replace("dora test", "dora test -p no:anyio")],
        cwd=tmp_path / "greetings",
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert (tmp_path / "greetings" / "report.xml").exists()


@pytest.mark.integration
def test_interpreter_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv` is used if it has dora-testing; the exit code is that of pytest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_it.py").write_text("def test_it(dora_flow): assert not dora_flow\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$1" in -c) exit 0;; esac\necho "own: $*"\nexit 5\n')
    python.chmod(0o755)
    own = run_dora("test", "-k", "it").exited(5)
    assert own.stdout == "own: -m pytest -k it\n"
    python.write_text("#!/bin/sh\nexit 1\n")
    other = run_dora("test", "-q", "-p", "no:anyio", "-p", "no:cacheprovider")
    assert other.code == 1, other
    assert "has no dora-testing; using" in other.stderr
    shutil.rmtree(tmp_path / ".venv")
