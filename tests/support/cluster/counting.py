"""A cluster of test hosts with a counting dataflow, to find lost and repeated messages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from support.cluster.hosts import Host, Hosts
from support.cluster.installation import Installation
from support.waiting import wait_until
from support.workspace import Workspace

SENDER = """
    from dora import Node
    import pyarrow as pa

    number = 0
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([number]))
            number += 1
"""

COUNTER = """
    import os
    from dora import Node

    with open("colour", "w") as file:
        file.write(os.environ.get("COLOUR", "none"))
    with open("numbers", "a") as file:
        for event in Node():
            if event["type"] == "INPUT":
                print(event["value"][0].as_py(), file=file, flush=True)
"""

Popen = subprocess.Popen[bytes]


class CountingCluster:
    """A cluster with a counting dataflow."""

    def __init__(self, hosts: Hosts, file: Path, wheels: Path) -> None:
        self.hosts = hosts
        self.file = file
        self.wheels = wheels

    def run(self, version: Installation, *words: str, code: int = 0) -> str:
        """Run ``dora cluster WORDS FILE`` of a version; return its output."""
        offline = (
            ["--offline", str(self.wheels)] if words[0] in ("install", "upgrade", "up") else []
        )
        done = version.run("cluster", *words, self.file, *offline, timeout=300)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def disturb(
        self, version: Installation, *words: str, after: str, by: Callable[[Popen], None]
    ) -> tuple[int, str]:
        """Like ``run``, but call ``by`` after the output ``after``; returns also the exit code."""
        printed = self.file.with_name("output.txt")
        with printed.open("wb") as file:
            process = subprocess.Popen(
                [version.dora, "cluster", *words, self.file, "--offline", self.wheels],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            try:
                wait_until(
                    lambda: after in printed.read_text(), timeout=200, what=printed.read_text
                )
                by(process)
                code = process.wait(200)
            finally:
                process.kill()
                process.wait()
        return code, printed.read_text()

    def wrote(self, host: Host, name: str) -> str:
        """Return the content of a file of the counting node."""
        (found,) = host.path("/home/ubuntu/_work").glob(f"*/{name}")
        return found.read_text()

    def numbers(self, host: Host) -> list[int]:
        return [int(line) for line in self.wrote(host, "numbers").split()]

    def require_whole(self, host: Host) -> None:
        """Each number so far arrived once, and more arrive."""
        before = len(self.numbers(host))
        wait_until(lambda: len(self.numbers(host)) > before + 20, what="more numbers")
        numbers = self.numbers(host)
        assert numbers == list(range(len(numbers)))


def start_counting(workspace: Workspace, version: Installation, host: Host) -> None:
    deploy = {"machine": host.name, "distribute": "http"}
    workspace.node(f"{host.name}/sender", SENDER)
    workspace.node(f"{host.name}/counter", COUNTER)
    nodes: list[dict[str, object]] = [
        {
            "id": "sender",
            "path": "sender.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["number"],
            "deploy": deploy,
        },
        {
            "id": "counter",
            "path": "counter.py",
            "inputs": {"number": {"source": "sender/number", "queue_size": 1000}},
            "deploy": deploy,
        },
    ]
    path = workspace.dataflow({"nodes": nodes}, f"{host.name}/dataflow.yml")
    done = version.run("start", path, "--detach", "--name", f"count-{host.name}")
    assert done.returncode == 0, done.stdout + done.stderr
