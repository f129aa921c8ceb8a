"""Which files belong to a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_cli.live.node_files import files_of
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
