"""Wheels that `dora self wheels` writes again from an installation."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from support.cluster.installation import Installation
from support.dora import run_dora
from support.sources import PACKAGES

from dora_cluster.bundle.own_packages import own_packages, write_wheels


def contents(site: Path) -> dict[str, str]:
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
        and path.relative_to(site).parts[0].startswith("dora")
        and "__pycache__" not in path.parts
        and not path.parent.name.endswith(".dist-info")
    }


@pytest.mark.integration
def test_wheels_install_what_was_installed(old_version: Installation, tmp_path: Path) -> None:
    wheels = write_wheels(own_packages([str(old_version.site)]), tmp_path / "wheels")
    assert {path.name.partition("-")[0].replace("_", "-") for path in wheels} == set(PACKAGES)
    target = tmp_path / "site"
    run_dora(
        *("pip", "install", "--quiet", "--offline", "--no-deps", "--target", str(target)),
        *map(str, wheels),
        program=(Path(sys.executable).with_name("uv"),),
    ).succeeded()
    assert contents(target) == contents(old_version.site)
    assert (target / "bin" / "dora").is_file()


def test_files_that_dora_rs_replaced_are_those_of_the_wheel(
    old_version: Installation, tmp_path: Path
) -> None:
    for folder in old_version.site.glob("dora*"):
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / folder.name)
        else:
            shutil.copy(folder, tmp_path)
    installed = own_packages([str(tmp_path)])
    (tmp_path / "dora" / "__init__.py").write_text("raise ImportError('the other dora')")
    assert own_packages([str(tmp_path)]) == installed
    shutil.rmtree(tmp_path / "dora")
    assert own_packages([str(tmp_path)]) == installed
