"""Which files belong to a node."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dora_cli.live.node_files import files_of, syntax_problem
from dora_config.dataflow.resolved import ResolvedNode, ResolvedOperator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "camera.py": "import helper, os\nfrom lib import deep\nfrom lib.deep import x\n",
        "helper.py": "from lib import other as o\n",
        "lib/__init__.py": "from . import relative\n",
        "lib/deep.py": "from .relative import y\n",
        "lib/other.py": "import camera\n",
        "lib/relative.py": "y = 1\n",
        "unrelated.py": "",
        "broken.py": "import (\n",
        "settings.yml": "a: 1\n",
        "op.py": "import helper\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def names(node: ResolvedNode, folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in files_of(node, folder)}


IMPORTED = {
    "helper.py",
    "lib/__init__.py",
    "lib/deep.py",
    "lib/other.py",
    "lib/relative.py",
}


def test_imports_are_followed_at_any_depth(folder: Path) -> None:
    assert names(ResolvedNode(id="a", path="camera.py"), folder) == {"camera.py", *IMPORTED}


def test_files_named_in_arguments_and_variables(folder: Path) -> None:
    node = ResolvedNode(
        id="a", path="unrelated.py", args=("--config=settings.yml", "lib"), env={"F": "helper.py"}
    )
    assert names(node, folder) == {"unrelated.py", "settings.yml", "helper.py"}


def test_a_file_with_a_syntax_error_is_followed(folder: Path) -> None:
    assert names(ResolvedNode(id="a", path="broken.py"), folder) == {"broken.py"}


def test_warnings_about_the_code_are_not_shown(folder: Path) -> None:
    (folder / "warned.py").write_text('pattern = "\\d"\nimport unrelated\n')
    node = ResolvedNode(id="a", path="warned.py")
    assert names(node, folder) == {"warned.py", "unrelated.py"}


def test_operators_and_other_programs(folder: Path) -> None:
    operator = ResolvedOperator(id="op", python="op.py")
    node = ResolvedNode(id="a", kind="runtime", operators=(operator,))
    assert "op.py" in names(node, folder)
    assert files_of(ResolvedNode(id="a", path="missing.py"), folder) == frozenset()


def test_a_link_is_followed_with_its_target(folder: Path) -> None:
    (folder / "link.py").symlink_to("unrelated.py")
    node = ResolvedNode(id="a", path="link.py")
    assert names(node, folder) == {"link.py", "unrelated.py"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed, and its console script on PATH."""
    for name, text in {
        "bin/detect": f"#!{sys.executable}\nimport sys\nfrom pk.cli import main\n",
        "bin/plan": f"#!{sys.executable}\nfrom pk import plan\n",
        "src/pk/__init__.py": "raise SystemExit('imported')\n",
        "src/pk/cli.py": "import json, numpy, common.shapes\nfrom .deep import model\n",
        "src/pk/deep/model.py": "import importlib\nimportlib.import_module('pk.named')\n",
        "src/pk/named.py": "",
        "src/pk/plan.py": "import installed\n",
        "src/pk/unused.py": "",
        "src/common/shapes.py": "from pk.deep import model\n",
        "site-packages/installed/__init__.py": "",
        "src/single.py": "",
        "flow/settings.yml": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    for name in ("detect", "plan"):
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "long").write_text(
        "#!/bin/sh\n'''exec' \"/long path/python\" \"$0\" \"$@\"\n' '''\nfrom single import main\n"
    )
    (tmp_path / "bin" / "long").chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'src'}:{tmp_path / 'site-packages'}")
    return tmp_path


@pytest.mark.parametrize("path", ["detect", "python"])
def test_a_console_script_is_followed_with_what_it_imports(package: Path, path: str) -> None:
    args = ("-m", "pk.cli", "--config", "settings.yml") if path == "python" else ("settings.yml",)
    found = files_of(ResolvedNode(id="a", path=path, args=args), package / "flow")
    assert {str(file.relative_to(package)) for file in found} == {
        "src/pk/__init__.py",
        "src/pk/cli.py",
        "src/pk/deep/model.py",
        "src/pk/named.py",
        "src/common/shapes.py",
        "flow/settings.yml",
    }


def test_two_scripts_of_a_package_share_only_what_both_import(package: Path) -> None:
    found = files_of(ResolvedNode(id="a", path="plan"), package / "flow")
    assert {str(file.relative_to(package)) for file in found} == {
        "src/pk/__init__.py",
        "src/pk/plan.py",
    }


def test_the_path_of_a_console_script(package: Path) -> None:
    for path in ("../bin/detect", str(package / "bin" / "detect")):
        found = files_of(ResolvedNode(id="a", path=path), package / "flow")
        assert {file.name for file in found} == {
            *("detect", "__init__.py", "cli.py", "model.py", "named.py", "shapes.py")
        }


def test_a_console_script_of_a_single_module(package: Path) -> None:
    found = files_of(ResolvedNode(id="a", path="long"), package / "flow")
    assert found == {package / "src" / "single.py"}


@pytest.mark.parametrize("path", ["sleep", "no-such-program"])
def test_other_programs_on_path_are_not_followed(package: Path, path: str) -> None:
    assert files_of(ResolvedNode(id="a", path=path), package / "flow") == frozenset()


def test_syntax_errors(package: Path) -> None:
    flow = package / "flow"
    file = flow / "node.py"
    node = ResolvedNode(id="a", path="node.py")
    for text, problem in {
        "x = 1\n": None,
        "pattern = '\\d'\n": None,  # a warning
        "x = 1\ndef f(:\n": "2: invalid syntax",
        "return 1\n": "1: 'return' outside function",
    }.items():
        file.write_text(text)
        assert syntax_problem(file, [(node, flow)]) == problem
    assert syntax_problem(flow / "settings.yml", []) is None


def test_the_interpreter_of_a_node_decides_about_its_syntax(package: Path) -> None:
    file = package / "src" / "pk" / "cli.py"
    file.write_text("def f(:\n")
    newer = package / "newer"
    newer.mkdir()
    (newer / "python3.99").write_text("#!/bin/sh\nexit 0\n")
    (newer / "python3.99").chmod(0o755)
    node = ResolvedNode(id="a", path="detect")
    assert syntax_problem(file, [(node, package / "flow")]) is not None
    (package / "bin" / "detect").write_text(f"#!{newer / 'python3.99'}\nimport pk.cli\n")
    assert syntax_problem(file, [(node, package / "flow")]) is None
