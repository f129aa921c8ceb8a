"""Lines of pip as commands of uv: targets, folders that need no rebuild, settings, failures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dora_daemon.build.pip_lines import (
    lacks_download,
    network_failure,
    pip_arguments,
    pip_command,
    split_projects,
    uses_uv,
    uv_command,
    uv_settings,
)
from dora_daemon.build.python_env import find_uv

PYTHON = Path("/env/bin/python")


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("pip install x", "install x"),
        ("pip3 install x", "install x"),
        ("python -m pip install x", "install x"),
        ("python3 -m pip install x", "install x"),
        ("uv pip install x", None),
        ("python -m build", None),
        ("make pip", None),
    ],
)
def test_which_lines_are_those_of_pip(line: str, arguments: str | None) -> None:
    found = pip_arguments(line.split())
    assert (None if found is None else " ".join(found)) == arguments


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("install x", "UV pip install --python /env/bin/python x"),
        ("install --target d x", "UV pip install --target d x"),
        ("install --python=o x", "UV pip install --python=o x"),
    ],
)
def test_uv_installs_for_the_interpreter_of_the_node(arguments: str, command: str) -> None:
    assert " ".join(uv_command("UV", arguments.split(), PYTHON)) == command
    assert sys.executable in uv_command("UV", ["install", "x"], None)


def test_pip_runs_what_uv_does_not_have() -> None:
    assert uses_uv(("install", "x"), PYTHON)
    assert not uses_uv(("download", "x"), PYTHON)
    assert not uses_uv((), PYTHON)
    assert pip_command(("download", "x"), None)[1:] == ("-m", "pip", "download", "x")
    assert pip_command(("download", "x"), PYTHON)[-4:] == ("--python", str(PYTHON), "download", "x")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An environment, and a folder with the packages `plain` and `editable` installed into it."""
    base = tmp_path_factory.mktemp("projects")
    uv = find_uv(os.environ)
    assert uv is not None
    for name in ("plain", "editable"):
        folder = base / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "1"\n'
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (folder / "backend.py").write_text(BACKEND.format(name=name))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, base / "env"], check=True)
    python = base / "env" / "bin" / "python"
    install = [uv, "pip", "install", "-q", "--offline", "--python", str(python)]
    subprocess.run([*install, "./plain", "-e", "./editable"], cwd=base, check=True)
    return base, python


BACKEND = """
import base64, zipfile

def _write(folder):
    with zipfile.ZipFile(f"{{folder}}/{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("{name}_module.py", "")
        info = "{name}-1.dist-info"
        texts = {{
            "METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n",
            "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            "RECORD": "",
        }}
        for file, text in texts.items():
            wheel.writestr(f"{{info}}/{{file}}", text)
    return "{name}-1-py3-none-any.whl"

def build_wheel(folder, settings=None, metadata=None):
    return _write(folder)

build_editable = build_wheel
"""


def split(base: Path, python: Path, line: str) -> tuple[str, str]:
    kept, requirements = split_projects(line.split(), base, python)
    return " ".join(kept), " ".join(requirements).replace(f"{base}/", "")


def test_unchanged_folders_become_requirements(installed: tuple[Path, Path]) -> None:
    base, python = installed
    assert split(base, python, "install ./plain[x] numpy") == ("install numpy", "plain[x]")
    assert split(base, python, "install -e ./editable") == ("install", "-e editable")
    assert split(base, python, "install --editable=./editable") == ("install", "-e editable")
    assert split(base, python, "install --no-deps ./plain") == ("install --no-deps", "plain")
    # perhaps the value of an option
    assert split(base, python, "install -U ./plain") == ("install -U ./plain", "")
    assert split(base, python, "install -t ./plain x") == ("install -t ./plain x", "")
    assert split(base, python, "install -U -e ./editable") == ("install -U", "-e editable")
    assert split(base, python, "install -e") == ("install -e", "")
    assert split(base, python, "install plain") == ("install plain", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "backend.py").touch(),
        lambda folder: (folder / "new.py").touch(),
        lambda folder: (folder / "old.py").unlink(),
    ],
)
def test_changed_folders_are_rebuilt(
    installed: tuple[Path, Path], tmp_path: Path, change: object
) -> None:
    base, python = installed
    copy = shutil.copytree(base / "plain", tmp_path / "plain")
    (copy / "old.py").touch()
    uv = find_uv(os.environ)
    assert uv is not None
    install = [uv, "pip", "install", "-q", "--offline", "--python", str(python), "./plain"]
    subprocess.run(install, cwd=tmp_path, check=True)
    assert split(tmp_path, python, "install ./plain") == ("install", "plain")
    assert callable(change)
    change(copy)
    assert split(tmp_path, python, "install ./plain") == ("install ./plain", "")
    subprocess.run(install, cwd=tmp_path, check=True)
    assert split(tmp_path, python, "install ./plain") == ("install", "plain")
    install[-1:] = ["./plain"]
    subprocess.run(install, cwd=base, check=True)


def test_an_editable_package_with_modules_only_is_never_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    project = tmp_path / "p" / "pyproject.toml"
    for backend in ("setuptools.build_meta", "hatchling.build"):
        project.write_text(f'[build-system]\nrequires = []\nbuild-backend = "{backend}"\n')
        assert split(tmp_path, PYTHON, "install -e ./p") == ("install", "-e p")
    (tmp_path / "p" / "setup.py").touch()
    assert split(tmp_path, PYTHON, "install -e ./p") == ("install --editable ./p", "")
    (tmp_path / "p" / "setup.py").unlink()
    project.write_text('[build-system]\nrequires = []\nbuild-backend = "maturin"\n')
    assert split(tmp_path, PYTHON, "install -e ./p") == ("install --editable ./p", "")


def test_settings_of_pip_are_given_to_uv_unless_it_has_its_own(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    mirror = "https://mirror.example/simple"
    config.write_text(
        f"[global]\nindex-url = {mirror}\n"
        "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
        "[install]\nno_index = true\n"
    )
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(config)}
    assert uv_settings({**environ, "PIP_FIND_LINKS": "/a /b"}).items() >= {
        ("UV_DEFAULT_INDEX", mirror),
        ("UV_INDEX", "https://one.example/simple https://two.example/simple"),
        ("UV_FIND_LINKS", "/a,/b"),
        ("UV_OFFLINE", "true"),
        ("UV_INDEX_STRATEGY", "unsafe-best-match"),
    }
    own = uv_settings({**environ, "PIP_INDEX_URL": "https://own.example/simple"})
    assert own["UV_DEFAULT_INDEX"] == "https://own.example/simple"
    assert uv_settings({**environ, "UV_DEFAULT_INDEX": "https://uv.example"}) == {}


def test_failures_of_a_missing_network() -> None:
    output = [
        "error: Failed to fetch: https://pypi.org/simple/x/",
        "  cause: client error (Connect)",
        "  cause: failed to lookup address information: Temporary failure in name resolution",
        "hint: something else",
    ]
    cause = "failed to lookup address information: Temporary failure in name resolution"
    assert network_failure(output) == cause
    assert network_failure(["  ╰─▶ failed to lookup address"]) == "failed to lookup address"
    assert network_failure(["error: No solution found"]) is None
    assert lacks_download(["  cause: Because x was not found in the cache and you require x"])
    assert lacks_download(["  × x was not found in the", "      cache and you require it"])
    assert not lacks_download(["error: invalid syntax"])
