"""Layers of a node's environment, reserved names, values of the machine."""

from __future__ import annotations

import pytest

from dora_config.dataflow.resolved import FromMachine
from dora_daemon.runner.process.environment import merge_environment, with_packages


def test_the_node_wins_over_the_command_line_over_the_dataflow_over_the_machine() -> None:
    inherited = {"A": "machine", "B": "machine", "C": "machine", "D": "machine"}
    root = {"B": "root", "C": "root", "D": "root"}
    own = {**root, "D": "node"}
    merged = merge_environment(inherited, root, {"C": "cli", "D": "cli"}, own)
    assert merged.variables == {"A": "machine", "B": "root", "C": "cli", "D": "node"}


OWN = (
    "DORA_NODE_CONFIG",
    "DORA_RUNTIME_CONFIG",
    "DORA_ZENOH_LISTEN",
    "DORA_RUN_PARENT_PID",
    "DORA_AUTH_TOKEN",
    "DORA_ALLOW_SHELL_NODES",
)
LOADING = ("ZENOH_CONFIG", "LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES")


@pytest.mark.parametrize("name", [*OWN, *LOADING])
def test_reserved_names_are_not_set(name: str) -> None:
    merged = merge_environment({}, {name: "y"}, {name: "z"}, {name: "y"})
    assert merged.variables == {}
    assert merged.warnings == (f"env variable {name} is reserved and was not set",)


@pytest.mark.parametrize("name", [*OWN, *LOADING])
def test_only_names_of_dora_are_not_inherited(name: str) -> None:
    merged = merge_environment({name: "x"}, {}, {}, {})
    assert merged.variables == ({} if name in OWN else {name: "x"})
    assert merged.warnings == ()


def test_the_path_of_libraries_is_inherited_and_set() -> None:
    name = "LD_LIBRARY_PATH"
    assert merge_environment({name: "/cuda"}, {}, {}, {}).variables == {name: "/cuda"}
    merged = merge_environment({name: "/cuda"}, {}, {}, {name: "/mine"})
    assert merged.variables == {name: "/mine"}
    assert merged.warnings == ()


def test_a_value_of_the_machine_is_used_or_named_as_missing() -> None:
    own = {"PORT": FromMachine(name="LIDAR"), "X": FromMachine(name="NOWHERE")}
    merged = merge_environment({"LIDAR": "/dev/tty7"}, {}, {}, own)
    assert merged.variables["PORT"] == "/dev/tty7"
    assert len(merged.problems) == 1
    assert "NOWHERE" in merged.problems[0]


def test_the_packages_come_first_on_the_final_pythonpath() -> None:
    assert with_packages({"PYTHONPATH": "/a:/b"}, "/run/p")["PYTHONPATH"] == "/run/p:/a:/b"
    assert with_packages({}, "/run/p")["PYTHONPATH"] == "/run/p"


def test_large_copies_go_past_the_caches_unless_the_user_has_decided() -> None:
    ours = "glibc.cpu.x86_non_temporal_threshold=0x400000"
    theirs = "glibc.cpu.x86_non_temporal_threshold=0x100000"
    assert with_packages({}, "/p")["GLIBC_TUNABLES"] == ours
    other = {"GLIBC_TUNABLES": "glibc.malloc.check=3"}
    assert with_packages(other, "/p")["GLIBC_TUNABLES"] == f"glibc.malloc.check=3:{ours}"
    assert with_packages({"GLIBC_TUNABLES": theirs}, "/p")["GLIBC_TUNABLES"] == theirs
