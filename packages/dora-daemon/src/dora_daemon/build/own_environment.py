"""Environments of nodes whose code was sent to this machine, built once per requirements.

An environment also contains the packages of the Python that runs dora, such as pyarrow, after those
that build lines install.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.code import CodeSet
from dora_daemon.build.python_env import built_mark, environment_dir

_INSTALLERS = ("pip", "pip3", "uv")


def build_key(node: ResolvedNode, code: CodeSet) -> str:
    """Return a key that changes when a build of the node could have another result.

    A line that installs packages depends on the files that it names (requirements, a lock, a
    wheel), any other line on all files of the node.
    """
    named: set[str] = set()
    everything = False
    for line in node.build:
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        if words[:1] and words[0] not in _INSTALLERS:
            everything = True
        for word in words[1:]:
            name = word.rpartition("=")[2].removeprefix("./").rstrip("/")
            named.add(name)
            everything = everything or name == "."
    files = [
        [file.path, file.sha256, file.executable]
        for file in code.files
        if everything or any(f"{file.path}/".startswith(f"{name}/") for name in named)
    ]
    facts = [list(node.build), sorted(files), {k: str(v) for k, v in sorted(node.env.items())}]
    facts += [list(sys.version_info[:2]), platform.machine()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def is_built(working_dir: Path, node: str, key: str | None = None) -> bool:
    """Return whether a build has succeeded there (with that key, if given)."""
    try:
        found = built_mark(working_dir, node).read_text()
    except OSError:
        return False
    return key is None or found == key


def mark_built(working_dir: Path, node: str, key: str) -> None:
    marker = built_mark(working_dir, node)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(key)


def begin(working_dir: Path, node: str) -> None:
    """Remove the result of an earlier build."""
    built_mark(working_dir, node).unlink(missing_ok=True)
    shutil.rmtree(environment_dir(working_dir, node), ignore_errors=True)


def share_packages(working_dir: Path, node: str) -> None:
    """Append the packages of dora to the import path of the environment."""
    for site in environment_dir(working_dir, node).glob("lib/python*/site-packages"):
        (site / "zz-dora.pth").write_text(sysconfig.get_path("purelib") + "\n")
