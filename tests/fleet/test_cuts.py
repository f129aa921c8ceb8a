"""A host is cut off in each step of each command: the command fails and can be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.clusters import daemons, ours
from support.cluster.hosts import Host, Hosts
from support.dora import run_dora
from support.waiting import wait_until

from dora_cli.main import main
from dora_cluster.connection import FinishedCommand
from dora_cluster.ownership import lease
from dora_cluster.ssh.connection import SshConnection

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

IMPATIENT = "ConnectTimeout 2\nServerAliveInterval 1\nServerAliveCountMax 1\n"
LONGEST = 60.0
"""Seconds that a command may take with a silent host; it takes about five."""


class Cutter:
    """Cuts a host off just before the ``step``-th command that it would run."""

    def __init__(self, host: Host, step: int) -> None:
        self.host = host
        self.step = step
        self.count = 0

    @property
    def done(self) -> bool:
        return self.count >= self.step

    @contextmanager
    def watching(self) -> Iterator[None]:
        real = SshConnection._execute
        config = Path.home() / ".ssh/config"
        before = config.read_text()

        def execute(link: SshConnection, *arguments: Any) -> FinishedCommand:
            # a lease that is not given back does not fail the command
            is_step = "lease.give_back" not in arguments[0]
            if is_step and link.name.startswith(f"{self.host.name} "):
                self.count += 1
                if self.count == self.step:
                    self.host.cut()
            return real(link, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SshConnection, "_execute", execute)
            config.write_text(IMPATIENT + before)
            try:
                yield
            finally:
                config.write_text(before)
                if self.done:
                    self.host.mend()


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next command of this process not wait for the lease of one that was cut off."""
    monkeypatch.setattr(lease, "LEASE", 5.0)
    monkeypatch.setattr(lease, "RENEW_INTERVAL", 3600.0)


def only_gpu(cluster_yml: Path) -> str:
    """A cluster file with only the host that is cut off; the other one needs no change."""
    content = yaml.safe_load(cluster_yml.read_text())
    content["machines"] = [one for one in content["machines"] if one["id"] == "gpu"]
    path = cluster_yml.with_name("gpu.yml")
    path.write_text(yaml.safe_dump(content))
    return str(path)


def in_each_step(
    gpu: Host,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    before: Callable[[], object],
    after: Callable[[], object],
    *,
    every: int = 1,
) -> int:
    """Run a command with the host cut off in each (``every``-th) step; return their number."""
    step = 1
    while True:
        before()
        capsys.readouterr()
        cutter = Cutter(gpu, step)
        began = time.monotonic()
        with cutter.watching():
            code = main(words)
        out, err = capsys.readouterr()
        if not cutter.done:
            assert code == 0, out + err
            return step - 1
        assert time.monotonic() - began < LONGEST
        assert code == 1, f"step {step}: {out}{err}"
        assert "ubuntu@10.77.0.3" in out
        assert "FAILED: the connection broke" in out, f"step {step}: {out}{err}"
        assert "ubuntu@10.77.0.2)... FAILED" not in out
        code = main(words)
        out, err = capsys.readouterr()
        assert code == 0, f"after step {step}: {out}{err}"
        after()
        step += every


def test_up(hosts: Hosts, cluster_yml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dora("cluster", "up", cluster_yml).succeeded()

    def end_daemon() -> None:
        pid = hosts["gpu"].path("/home/ubuntu/.local/state/dora/daemon/gpu/lock").read_text()
        hosts["gpu"].root("kill", pid, check=False)
        wait_until(lambda: "gpu" not in daemons(), what="the end of the daemon")

    steps = in_each_step(
        hosts["gpu"],
        ("cluster", "up", str(cluster_yml)),
        capsys,
        end_daemon,
        lambda: require_one_daemon(hosts["gpu"]),
    )
    assert steps >= 5


def require_one_daemon(host: Host) -> None:
    assert sum("dora daemon" in line for line in ours(host)) == 1
    assert host.name in daemons()


@pytest.mark.parametrize("words", ["doctor", "logs", "exec"])
def test_read_only_command(
    hosts: Hosts, cluster_yml: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    run_dora("cluster", "up", cluster_yml).succeeded()
    more = ("--", "true") if words == "exec" else ()
    cutter = Cutter(hosts["gpu"], 1)
    with cutter.watching():
        code = main(("cluster", words, str(cluster_yml), *more))
    out, err = capsys.readouterr()
    assert code == 1
    assert "gpu (ubuntu@10.77.0.3): the connection broke" in out + err or (
        "gpu (ubuntu@10.77.0.3)... FAILED: the connection broke" in out
    )
    assert main(("cluster", words, str(cluster_yml), *more)) == 0


def test_install(hosts: Hosts, cluster_yml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dora("cluster", "up", cluster_yml).succeeded()
    steps = in_each_step(
        hosts["gpu"],
        ("cluster", "install", str(cluster_yml)),
        capsys,
        lambda: main(("cluster", "uninstall", only_gpu(cluster_yml))),
        lambda: require_one_daemon(hosts["gpu"]),
        every=4,
    )
    assert steps >= 8


@pytest.mark.parametrize(("words", "least_steps"), [("uninstall", 6), ("down", 3)])
def test_command_that_removes_everything(
    hosts: Hosts,
    cluster_yml: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    least_steps: int,
) -> None:
    gpu = hosts["gpu"]
    for command in ("uninstall", "down"):
        main(("cluster", command, str(cluster_yml)))
    before = gpu.files()

    def prepare() -> None:
        if words == "uninstall":
            main(("cluster", "install", only_gpu(cluster_yml)))
        else:
            run_dora("cluster", "up", cluster_yml).succeeded()

    def require_nothing() -> None:
        assert gpu.files() == before
        assert ours(gpu) == []

    arguments = ("cluster", words, str(cluster_yml))
    steps = in_each_step(gpu, arguments, capsys, prepare, require_nothing, every=2)
    assert steps >= least_steps
