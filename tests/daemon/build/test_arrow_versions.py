"""NumPy 1 beside a pyarrow that needs NumPy 2: found, and mended by builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon.build.test_builder import build, outputs, program

from dora_daemon.build.arrow_versions import CURE, find_conflict
from dora_daemon.build.builder import BuildOptions
from dora_daemon.build.python_env import environment_dir


def installed(site: Path, **versions: str) -> Path:
    for name, version in versions.items():
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
    return site


@pytest.mark.parametrize(
    ("numpy", "pyarrow", "conflict"),
    [
        ("1.26.4", "26.0.1", "pyarrow 26.0.1 does not work with NumPy 1.26.4"),
        ("1.26.4", "25.0.1", None),
        ("2.4.6", "26.0.1", None),
        ("1.26.4", "27.0.0.dev12", "pyarrow 27.0.0.dev12 does not work with NumPy 1.26.4"),
    ],
)
def test_versions(tmp_path: Path, numpy: str, pyarrow: str, conflict: str | None) -> None:
    site = installed(tmp_path, numpy=numpy, pyarrow=pyarrow)
    assert find_conflict([site]) == conflict


def test_the_first_folder_of_the_path_counts(tmp_path: Path) -> None:
    first = installed(tmp_path / "first", numpy="1.26.4")
    shared = installed(tmp_path / "shared", numpy="2.4.6", pyarrow="26.0.1")
    assert find_conflict([first, shared]) is not None
    assert find_conflict([shared, first]) is None
    assert find_conflict([first]) is None


UV = """
site=.dora/python-envs/a/lib/python3.11/site-packages
case "$*" in
  "venv "*)
    mkdir -p "$site/pyarrow-26.0.1.dist-info" .dora/python-envs/a/bin
    touch .dora/python-envs/a/pyvenv.cfg .dora/python-envs/a/bin/python;;
  *" x") mkdir -p "$site/numpy-1.26.4.dist-info"; echo "$@";;
  *) echo "$@";;
esac
"""
"""Makes an environment with pyarrow 26; NumPy 1 comes with `x`."""


def fake_uv(folder: Path) -> str:
    return program(folder / "uv", UV)


def test_a_build_installs_a_pyarrow_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = fake_uv(tmp_path)
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    node = {"id": "a", "build": ["pip install x"]}
    _, events = build(tmp_path, node, options=BuildOptions(uv=True))
    python = environment_dir(tmp_path, "a") / "bin" / "python"
    assert outputs(events) == [
        f"pip install --python {python} x",
        f"pip install --python {python} {CURE}",
    ]


def test_other_builds_install_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = fake_uv(tmp_path)
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    node = {"id": "a", "build": ["pip install y"]}
    _, events = build(tmp_path, node, options=BuildOptions(uv=True))
    assert len(outputs(events)) == 1


def test_an_environment_that_has_the_pyarrow_of_dora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that was sent here gets an environment of its own before the packages of dora."""
    uv = program(tmp_path / "uv", UV.replace('"$site/pyarrow-26.0.1.dist-info"', '"$site"'))
    monkeypatch.setattr("dora_daemon.build.builder.find_uv", lambda environ: uv)
    shared = installed(tmp_path / "dora", numpy="2.4.6", pyarrow="26.0.1")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(shared))
    node = {"id": "a", "build": ["pip install x"]}
    _, events = build(tmp_path, node, options=BuildOptions(build_keys={"a": "key"}))
    assert outputs(events)[-1].endswith(CURE)
