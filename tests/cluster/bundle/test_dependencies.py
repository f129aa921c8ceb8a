"""Wheels for another platform from an index or a folder, and errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from dora_cluster.bundle import dependencies
from dora_cluster.bundle.dependencies import Platform, WheelsMissing, install

HERE = Platform("x86_64", "glibc", (2, 36), (3, 11, 2))


def test_missing_folder_of_wheels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WheelsMissing, match=r"--offline .*/absent: the folder does not exist"):
        install(HERE, tmp_path / "site", offline=tmp_path / "absent")


@pytest.mark.integration
def test_error_names_the_missing_wheel_and_the_command_that_fetches_it(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    with pytest.raises(WheelsMissing) as problem:
        install(HERE, tmp_path / "site", offline=tmp_path / "wheels")
    first, second, *_ = str(problem.value).splitlines()
    assert first.startswith(f"the folder {tmp_path / 'wheels'} has no wheel of ")
    assert first.endswith(" for x86_64, glibc 2.36, Python 3.11.2")
    assert "==" in first
    assert "dora self wheels DIR --for x86_64-glibc2.36-py3.11" in second


def test_missing_uv_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "find_uv", lambda environ: None)
    with pytest.raises(WheelsMissing, match=r"uv is not installed .* -m pip install uv"):
        install(HERE, tmp_path / "site")


def test_scripts_of_wheels_are_removed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_text(f"#!{sys.executable}\n")
    (tmp_path / ".lock").touch()
    record = tmp_path / "tool-1.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("bin/tool,sha256=a,1\ntool.py,sha256=b,1\n../../bin/tool,sha256=c,1\n")
    dependencies.remove_scripts(tmp_path)
    assert record.read_text() == "tool.py,sha256=b,1\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tool-1.dist-info"}


def test_the_lock_is_used_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv refuses constraints without hashes, and pip contradictions; machines need no uv."""
    seen: list[tuple[str, dict[str, str]]] = []

    def run(words: list[str], platform: Platform, environment: dict[str, str], **_: object) -> Any:
        if "download" not in words:
            seen.append((Path(words[-1]).read_text(), environment))
        else:
            seen.append(("", environment))
        return CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(dependencies, "_run", run)
    for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT", "UV_OVERRIDE"):
        monkeypatch.setenv(name, "constraints.txt")
    install(HERE, tmp_path / "site")
    dependencies.download(HERE, tmp_path / "wheels")
    (lock, of_uv), (_, of_pip) = seen
    assert not of_uv.keys() & {"UV_CONSTRAINT", "UV_OVERRIDE"}
    assert of_pip["PIP_CONSTRAINT"] == os.devnull
    assert "\nnumpy==" in lock
    assert "\npillow==" in lock
    assert "\nuv==" not in lock


def test_constraints_of_uv_have_their_own_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = "error: In `--require-hashes` mode, all requirements must have their versions pinned"
    done = CompletedProcess([], 2, "", printed)
    monkeypatch.setattr(dependencies, "_run", lambda *_, **__: done)
    with pytest.raises(WheelsMissing, match=r"remove constraint-dependencies .* \(uv.toml\)"):
        install(HERE, tmp_path / "site")
