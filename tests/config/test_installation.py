"""Commands that install what is missing work where dora came from."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from support.sources import ROOT

from dora_config import installation
from dora_config.installation import extra_command, install_command, wheel_command, wheel_source

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of dora-config, before others on the import path."""
    folder = tmp_path / "site" / "dora_config-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: dora-config\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def origin(site: Path, path: Path, **facts: object) -> None:
    (site / "direct_url.json").write_text(json.dumps({"url": path.as_uri(), **facts}))


def test_a_checkout(site: Path) -> None:
    origin(site, ROOT / "packages" / "dora-config", dir_info={})
    words = shlex.split(wheel_command("dora-ros2"))
    assert words == [sys.executable, "-m", "pip", "install", str(ROOT / "packages" / "dora-ros2")]
    origin(site, ROOT / "packages" / "dora-config", dir_info={"editable": True})
    source = shlex.split(wheel_source("dora-ros2"))
    assert source[-2:] == ["-e", str(ROOT / "packages" / "dora-ros2")]


def test_a_folder_of_wheels_with_a_space(site: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "my wheels"
    wheels.mkdir()
    for name in ("dora_config-0.1.0", "dora_ros2-0.0.9", "dora_ros2-0.1.0"):
        (wheels / f"{name}-py3-none-any.whl").touch()
    origin(site, wheels / "dora_config-0.1.0-py3-none-any.whl", archive_info={})
    words = shlex.split(wheel_command("dora-ros2", "--force-reinstall"))
    assert words[-2:] == ["--force-reinstall", str(wheels / "dora_ros2-0.1.0-py3-none-any.whl")]


@pytest.mark.parametrize("known", [True, False])
def test_an_unknown_origin_needs_a_checkout(site: Path, tmp_path: Path, known: bool) -> None:
    if known:
        origin(site, tmp_path / "gone" / "dora-config", dir_info={})
    assert wheel_command("dora-ros2") == (
        f"{PYTHON} -m pip install packages/dora-ros2 (in a checkout of dora for Python)"
    )


def test_wheels_that_a_wheel_needs_are_installed_with_it(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin(site, ROOT / "packages" / "dora-config", dir_info={})
    found = installation._installed
    missing = ("dora-cli-core", "dora-cluster", "dora-coordinator")
    monkeypatch.setattr(
        installation, "_installed", lambda one: None if one in missing else found(one)
    )
    words = shlex.split(wheel_command("dora-cluster"))
    wheels = ("dora-coordinator", "dora-cli-core", "dora-cluster")
    assert words[4:] == [str(ROOT / "packages" / one) for one in wheels]
    assert shlex.split(wheel_source("dora-ros2"))[-1] == str(ROOT / "packages" / "dora-ros2")
    assert installation.with_needed("dora-ros2") == ["dora-node-api", "dora-ros2"]


def test_libraries_of_an_extra() -> None:
    command = extra_command("dora-coordinator", "otel")
    assert " -m pip install 'opentelemetry-" in command


def test_an_extra_of_a_wheel_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_installed", lambda wheel: None)
    command = "pip install packages/dora-node-api packages/dora-ros2 "
    assert command in extra_command("dora-ros2", "dds")


def test_uv_where_pip_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    assert install_command("x>=1") == f"uv pip install --python {PYTHON} 'x>=1'"
