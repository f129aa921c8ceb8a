"""Every type of the ROS wheels: hashes as in their files, messages as rclpy has them."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.ros2_values import random_value

from dora_ros2.definitions import idl
from dora_ros2.definitions.description import Structure, describe
from dora_ros2.types import Types

PYTHON = Path(os.environ["DORA_TESTS_RCLPY"])
SHARE = PYTHON.parents[1] / "share"
ROUNDS = 8
Ask = Callable[[str, str, Any], Any]


@cache
def descriptions() -> list[dict[str, Any]]:
    """Return the contents of all JSON files of interfaces."""
    found = [
        json.loads(path.read_text())
        for kind in ("msg", "srv", "action")
        for path in sorted(SHARE.glob(f"*/{kind}/*.json"))
    ]
    return [one for one in found if "type_hashes" in one]


@cache
def hashes() -> dict[str, str]:
    return {
        entry["type_name"]: entry["hash_string"]
        for one in descriptions()
        for entry in one["type_hashes"]
    }


@pytest.fixture(scope="module")
def types() -> Types:
    return Types([SHARE])


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Send requests to a process with rclpy."""
    command = [str(PYTHON), str(Path(__file__).with_name("rclpy_worker.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        stdin, stdout = worker.stdin, worker.stdout
        assert stdin is not None
        assert stdout is not None

        def request(*words: Any) -> Any:
            pickle.dump(words, stdin)
            stdin.flush()
            done, result = pickle.load(stdout)
            assert done, f"{words[:2]}: {result}"
            return result

        yield request
        stdin.close()
        worker.wait(60)


def test_descriptions_and_hashes(types: Types) -> None:
    assert len(hashes()) >= 130
    assert {name: types.description(name).hash for name in hashes()} == hashes()
    for one in descriptions():
        expected = one["type_description_msg"]
        name = expected["type_description"]["type_name"]
        assert types.description(name).as_message() == expected


def test_hashes_of_idl_files() -> None:
    structures: dict[str, Structure] = {}
    for kind in ("msg", "srv", "action"):
        for path in SHARE.glob(f"*/{kind}/*.idl"):
            name = f"{path.parents[1].name}/{kind}/{path.stem}"
            structures |= {one.name: one for one in idl.parse(name, path.read_text())}
    found = {name: describe(name, structures.__getitem__).hash for name in hashes()}
    assert found == hashes()


def message_names(types: Types) -> list[str]:
    """Return the types that have messages: all but services and actions themselves."""
    return sorted(
        name for name in hashes() if "/msg/" in name or not _is_interface(types, name)
    )  # fmt: skip


def _is_interface(types: Types, name: str) -> bool:
    fields = [field.name for field in types.description(name).main.fields]
    return fields[0] == "request_message" or fields[-1] == "feedback_message"


def test_messages(types: Types, ask: Ask) -> None:
    """What rclpy serialises is decoded here, and what is encoded here is read by rclpy."""
    names = message_names(types)
    assert len(names) >= 130
    for name in names:
        message = types.message(name)
        source = random.Random(name)
        for _ in range(ROUNDS):
            value = random_value(message.description, source)
            theirs = ask("serialise", name, value)
            assert message.decode(theirs).to_pylist() == [value], name
            assert ask("deserialise", name, bytes(message.encode(value))) == value, name
            ours = message.encode(message.decode(theirs))
            assert message.decode(ours).to_pylist() == [value], name
    print(f"{len(names)} types")


def test_defaults_are_those_of_rclpy(types: Types, ask: Ask) -> None:
    for name in message_names(types):
        message = types.message(name)
        theirs = message.decode(ask("serialise", name, {}))
        assert message.decode(message.encode({})).equals(theirs), name
