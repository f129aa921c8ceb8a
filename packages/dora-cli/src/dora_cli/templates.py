"""Contents of the files that `dora new` writes; pure."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping

_TALKER = '''"""Sends a greeting at every tick, ten times."""

import sys

import pyarrow as pa
from dora import Node

name = sys.argv[1] if len(sys.argv) > 1 else "talker"
sent = 0

with Node() as node:
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "tick":
            sent += 1
            node.send_output("speech", pa.array([f"hello from {name}, number {sent}"]))
            if sent == 10:
                break
        elif event["type"] == "STOP":
            break
'''

_LISTENER = '''"""Prints the greetings until both talkers have ended."""

from dora import Node

received = 0

with Node() as node:
    for event in node:
        if event["type"] == "INPUT":
            received += 1
            print(f"{event['id']}: {event['value'][0].as_py()}")
        elif event["type"] == "INPUT_CLOSED":
            print(f"{event['id']} has ended")

print(f"received {received} greetings")
'''

_DATAFLOW = """\
# Two talkers and a listener. Run it with: dora run dataflow.yml
nodes:
  - id: talker_1
    path: talker.py
    args: first
    inputs:
      tick: dora/timer/millis/100
    outputs: [speech]

  - id: talker_2
    path: talker.py
    args: second
    inputs:
      tick: dora/timer/millis/150
    outputs: [speech]

  - id: listener
    path: listener.py
    inputs:
      first: talker_1/speech
      second: talker_2/speech
"""

_DATAFLOW_README = """\
# {name}

Two talkers send greetings, a listener prints them. The dataflow ends when both have sent ten.

    dora run dataflow.yml       # run it
    dora graph dataflow.yml     # draw it
    dora validate dataflow.yml  # check it
"""

_NODE = '''"""Sends every input back as output."""

from dora import Node


def main() -> None:
    """Run the node until its inputs end."""
    with Node() as node:
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("output", event["value"], event["metadata"])


if __name__ == "__main__":
    main()
'''

_NODE_TEST = '''"""Test of the node without a dataflow."""

import pyarrow as pa
import pytest
from dora.testing import MockNode

from {package} import main as module


def test_every_input_is_sent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    node = MockNode([("input", pa.array([1, 2])), ("input", pa.array([3]))])
    monkeypatch.setattr(module, "Node", lambda: node)
    module.main()
    assert [data.to_pylist() for data in node.outputs["output"]] == [[1, 2], [3]]
'''

_NODE_PROJECT = """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "{project}"
version = "0.1.0"
description = "A dora node."
requires-python = ">=3.11"
dependencies = ["dora-node-api"]

[project.scripts]
{project} = "{package}.main:main"
"""

_NODE_README = """\
# {project}

A dora node that sends every message of `input` on `output`.

    nodes:
      - id: {package}
        build: pip install -e {project}
        path: {project}
        inputs: {{input: other/output}}
        outputs: [output]

Test it alone: `pip install -e . pytest && pytest`
"""


def package_name(name: str) -> str:
    """Return `name` as the name of a Python package; raises ValueError."""
    package = re.sub(r"[-. ]+", "_", name.strip()).lower()
    if not package.isidentifier():
        raise ValueError(f"{name!r} is not a valid package name; use letters, digits, - and _")
    return package


def dataflow_files(name: str) -> Mapping[str, str]:
    """Return the files of a dataflow with two talkers and a listener, by relative path."""
    return {
        "dataflow.yml": _DATAFLOW,
        "talker.py": _TALKER,
        "listener.py": _LISTENER,
        "README.md": _DATAFLOW_README.format(name=name),
        ".gitignore": "out/\n.dora/\n__pycache__/\n",
    }


def node_files(name: str) -> Mapping[str, str]:
    """Return the files of a Python project with one node, by relative path; raises ValueError."""
    package = package_name(name)
    if keyword.iskeyword(package):
        raise ValueError(f"{name!r} is a Python keyword; choose another name")
    if not package.isascii():
        raise ValueError(f"{name!r} is not a valid project name for pip; use ASCII letters")
    project = package.replace("_", "-")
    return {
        "pyproject.toml": _NODE_PROJECT.format(project=project, package=package),
        "README.md": _NODE_README.format(project=project, package=package),
        f"{package}/__init__.py": "",
        f"{package}/main.py": _NODE,
        f"tests/test_{package}.py": _NODE_TEST.format(package=package),
    }
