"""Build lines and environments of nodes."""

from __future__ import annotations

import pytest

from dora_config.dataflow.resolved import GitSource, ResolvedNode
from dora_daemon.build.errors import StepFailed
from dora_daemon.build.plan import (
    BuildLine,
    build_lines,
    shell_hint,
    wants_environment,
)


def _node(**fields: object) -> ResolvedNode:
    return ResolvedNode.model_validate({"id": "n", "path": "n.py", **fields})


def test_each_line_is_one_command_split_like_a_shell_splits() -> None:
    node = _node(build=("  pip install -e '.[all]' ", "", "   ", 'sh -c "a && b"'))
    assert [line.words for line in build_lines(node)] == [
        ("pip", "install", "-e", ".[all]"),
        ("sh", "-c", "a && b"),
    ]


def test_open_quotes_name_the_line() -> None:
    with pytest.raises(StepFailed, match=r"""build line 'echo "a': no closing quotation"""):
        build_lines(_node(build=('echo "a',)))


@pytest.mark.parametrize(
    ("fields", "work"),
    [
        ({}, False),
        ({"build": ("", "  ")}, False),
        ({"build": ("make",)}, True),
        ({"git": GitSource(url="u")}, True),
    ],
)
def test_which_nodes_need_a_build(fields: dict[str, object], work: bool) -> None:
    assert _node(**fields).needs_build is work


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"build": ("make",)}, True),
        ({"build": ()}, False),
        ({"build": ("pip install dora-echo",), "path": "dora-echo"}, True),
        ({"build": ("cargo build",), "path": "target/release/node"}, False),
        ({"build": ("make",), "path": None, "operators": [{"id": "o", "python": "o.py"}]}, True),
        ({"build": ("pip install x",), "kind": "dynamic"}, False),
        ({"build": ("pip install x",), "kind": "shell"}, False),
    ],
)
def test_which_nodes_get_a_python_environment(fields: dict[str, object], expected: bool) -> None:
    assert wants_environment(_node(**fields)) is expected


def test_a_line_that_expects_a_shell_is_explained() -> None:
    hint = shell_hint(BuildLine("a && b", ("a", "&&", "b")))
    assert hint is not None
    assert "'&&'" in hint
    assert shell_hint(BuildLine("a b", ("a", "b"))) is None
