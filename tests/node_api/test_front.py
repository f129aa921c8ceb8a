"""This `dora` comes before another wheel's, which pip writes into the same folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support.sources import ROOT

SOURCES = ROOT / "packages" / "dora-node-api"
SHOW = "import dora, sys; print(dora.__file__); print(*sys.path, sep='\\n')"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """site-packages of an environment with the files of the wheel, as its build places them."""
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    shutil.copytree(SOURCES / "src" / "dora_node_api", site / "dora_node_api")
    shutil.copytree(SOURCES / "src" / "dora", site / "dora")
    shutil.copytree(SOURCES / "src" / "dora", site / "dora_node_api" / "front" / "dora")
    shutil.copy(SOURCES / "front.pth", site / "dora-front.pth")
    (site / "of-tests.pth").write_text("".join(f"{path}\n" for path in sys.path if path))
    return site


def shown(site: Path, *options: str) -> list[str]:
    python = site.parents[2] / "bin" / "python"
    words = [str(python), *options, "-c", SHOW]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={})
    return done.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("-I",)])
def test_another_dora_in_the_same_folder(site: Path, options: tuple[str, ...]) -> None:
    (site / "dora" / "__init__.py").write_text("raise ImportError('the other dora')\n")
    front = site / "dora_node_api" / "front"
    imported, *path = shown(site, *options)
    assert imported == str(front / "dora" / "__init__.py")
    assert path.count(str(front)) == 1


def test_it_stays_when_another_dora_is_uninstalled(site: Path) -> None:
    shutil.rmtree(site / "dora")
    assert shown(site)[0].startswith(str(site / "dora_node_api" / "front"))


def test_an_editable_installation_uses_its_source(site: Path) -> None:
    for path in (site / "dora_node_api").iterdir():
        if path.name != "front":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(site / "dora")
    (site / "_editable.pth").write_text(f"{SOURCES / 'src'}\n")
    assert shown(site)[0] == str(SOURCES / "src" / "dora" / "__init__.py")
