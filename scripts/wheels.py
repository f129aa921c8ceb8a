"""Build wheel and sdist of every package, look into them, and make each one work alone.

``python scripts/wheels.py DIST``, where uv, hatchling and packaging are installed. Each wheel is
installed into an empty environment, from binary wheels only (nothing here may need a compiler), and
does there what it is for.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    path.parent.name: {one.parent.name for one in path.parent.glob("src/*/__init__.py")}
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
"""Wheels and their import packages; dora-cli has none."""

AT_ONCE = 2
"""Builds and checks that run beside each other."""

TOKEN = secrets.token_hex(32)
"""Token of coordinator and daemon in these checks."""

HELLO = """\
nodes:
  - id: talker
    path: talker.py
    outputs: [greeting]
  - id: listener
    path: listener.py
    inputs: {greeting: talker/greeting}
"""
TALKER = """\
from dora import Node
import pyarrow as pa
Node().send_output("greeting", pa.array(["hello from a wheel"]))
"""
LISTENER = """\
from dora import Node
for event in Node():
    if event["type"] == "INPUT":
        print(event["value"].to_pylist()[0], flush=True)
"""
TEST = """\
def test_hello(dora_flow):
    assert dora_flow("hello.yml").run().lines("listener") == ["hello from a wheel"]
"""
MOCK = """\
import sys
import pyarrow as pa
from dora import DoraStatus, Node
from dora.testing import MockNode
import dora_node_api
node = MockNode(inputs=[("in", pa.array([1, 2]))])
for event in node:
    if event["type"] == "INPUT":
        node.send_output("out", event["value"])
assert [array.to_pylist() for array in node.outputs["out"]] == [[1, 2]], node.outputs
"""


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run ``command`` and return what it printed; when it fails, end the script with all of it."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(dist: Path) -> dict[str, Path]:
    """Build all packages into ``dist`` (the wheel from the sdist); wheel by package name."""
    shutil.rmtree(dist, ignore_errors=True)

    def build_one(name: str) -> None:
        # the README's first command builds them isolated, with what they declare
        here = ("--no-build-isolation", "--python", sys.executable)
        run("uv", "build", "--quiet", *here, "--out-dir", dist, ROOT / "packages" / name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(build_one, PACKAGES))
    wheels = {
        name: next(dist.glob(f"{canonicalize_name(name).replace('-', '_')}-*.whl"))
        for name in PACKAGES
    }
    for name, wheel in wheels.items():
        look_into(name, wheel, next(dist.glob(f"{name.replace('-', '_')}-*.tar.gz")))
    return wheels


def look_into(name: str, wheel: Path, sdist: Path) -> None:
    """Check that wheel and sdist hold what they should, and nothing else."""
    assert wheel.name.endswith("-py3-none-any.whl"), wheel
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        (metadata_name,) = (file for file in files if file.endswith(".dist-info/METADATA"))
        metadata = archive.read(metadata_name).decode()
    folders = {file.partition("/")[0] for file in files}
    assert {one for one in folders if not one.endswith((".dist-info", ".pth"))} == PACKAGES[name]
    for package in PACKAGES[name]:
        assert f"{package}/py.typed" in files, f"{wheel.name} lacks {package}/py.typed"
    assert any(file.endswith("licenses/LICENSE") for file in files), f"{wheel.name}: no licence"
    assert re.search(r"^License-Expression: Apache-2\.0$", metadata, re.MULTILINE)
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)
    sources = {
        path.relative_to(ROOT / "packages" / name / "src").as_posix()
        for path in (ROOT / "packages" / name / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert sources <= set(files), f"{wheel.name} lacks {sorted(sources - set(files))}"
    with tarfile.open(sdist) as archive_of_sources:
        members = {member.partition("/")[2] for member in archive_of_sources.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= members, sdist
    print(f"{wheel.name}: {len(files)} files, {wheel.stat().st_size // 1024} KiB", flush=True)


class Environment:
    """An empty virtual environment with one of the wheels in it."""

    def __init__(self, folder: Path, name: str, wheels: dict[str, Path]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.wheels = wheels
        run("uv", "venv", "--quiet", "--python", sys.executable, folder)
        self.home.mkdir()
        # Our own packages come from here, by path: an index may hold others of the same name.
        siblings = folder / "siblings.txt"
        siblings.write_text("".join(f"{key} @ {path.as_uri()}\n" for key, path in wheels.items()))
        run("uv", "pip", "install", "--quiet", "--python", self.python, "--only-binary", ":all:",
            "--constraint", siblings, wheels[name])  # fmt: skip

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def dora(self) -> Path:
        return self.folder / "bin" / "dora"

    def variables(self) -> dict[str, str]:
        """As after a login: nothing of the environment that runs this script."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "DORA_AUTH_TOKEN": TOKEN,
            # Environments at the same path have the same modules: each is compiled once.
            "PYTHONPYCACHEPREFIX": str(self.folder.parent / "compiled"),
        }

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        return run(*command, env=self.variables(), cwd=cwd or self.home)

    def fails(self, *command: str | Path) -> str:
        """Return what a command prints that ends with 1."""
        done = subprocess.run(
            command, env=self.variables(), cwd=self.home, capture_output=True, text=True
        )
        assert done.returncode == 1, done
        return done.stderr

    def distributions(self) -> set[str]:
        listed = run("uv", "pip", "list", "--python", self.python, "--format", "json")
        return {canonicalize_name(entry["name"]) for entry in json.loads(listed)}

    @property
    def log(self) -> Path:
        """What the service has printed."""
        return self.folder / "service.log"

    @contextmanager
    def service(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """``dora ARGUMENTS`` in the background; ended with SIGINT, which must be enough."""
        with self.log.open("w+") as log:
            process = subprocess.Popen(
                [self.dora, *arguments],
                env=self.variables(),
                cwd=self.home,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
                process.send_signal(signal.SIGINT)
                process.wait(20)
            except BaseException:
                process.kill()
                process.wait()
                log.seek(0)
                print(log.read(), file=sys.stderr)
                raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_health(port: int, process: subprocess.Popen[str]) -> None:
    """Until the coordinator at ``port`` answers; SystemExit after 60 s."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"no coordinator answers on port {port}")


def smoke_config(environment: Environment) -> None:
    assert environment.run(environment.dora, "--version").startswith("dora ")
    environment.run(environment.python, "-c", "import dora_config; dora_config.load_dataflow")


def smoke_node_api(environment: Environment) -> None:
    environment.run(environment.python, "-I", "-c", MOCK)
    assert environment.distributions() == {"dora-node-api", "numpy", "pyarrow"}


def smoke_coordinator(environment: Environment) -> None:
    assert "dora coordinator" in environment.run(environment.dora, "coordinator", "--help")
    port = free_port()
    with environment.service("coordinator", "--port", str(port)) as process:
        wait_for_health(port, process)


def smoke_daemon(environment: Environment) -> None:
    assert "dora daemon" in environment.run(environment.dora, "daemon", "--help")
    other = Environment(environment.folder / "c", "dora-coordinator", environment.wheels)
    port = free_port()
    address = ("--coordinator-addr", "127.0.0.1", "--coordinator-port", str(port))
    with other.service("coordinator", "--port", str(port)) as coordinator:
        wait_for_health(port, coordinator)
        with environment.service("daemon", *address, "--machine-id", "robot") as daemon:
            deadline = time.monotonic() + 15
            while "connected to the coordinator" not in environment.log.read_text():
                if time.monotonic() > deadline or daemon.poll() is not None:
                    raise SystemExit("the daemon did not connect to the coordinator")
                time.sleep(0.05)


def write_hello(environment: Environment) -> None:
    for name, text in {"hello.yml": HELLO, "talker.py": TALKER, "listener.py": LISTENER}.items():
        (environment.home / name).write_text(text)


def smoke_cli(environment: Environment) -> None:
    write_hello(environment)
    printed = environment.run(environment.dora, "run", "hello.yml")
    assert "hello from a wheel" in printed, printed
    # what pip does when a ready-made node brings dora-rs into this environment
    (installed,) = environment.folder.glob("lib/python3*/site-packages/dora")
    (installed / "__init__.py").write_text("raise ImportError('the other dora')")
    printed = environment.run(environment.dora, "run", "hello.yml")
    assert "hello from a wheel" in printed, printed
    run_it = "import dora; dora.run('hello.yml')"
    assert "hello from a wheel" in environment.run(environment.python, "-c", run_it)
    shutil.rmtree(installed)  # and when that is uninstalled
    assert "hello from a wheel" in environment.run(environment.python, "-c", run_it)
    for command in ("daemon", "coordinator"):
        environment.run(environment.dora, command, "--help")


def smoke_whole(environment: Environment) -> None:
    """Check the wheel that has no code but brings the plug-ins."""
    write_hello(environment)
    printed = environment.run(environment.dora, "run", "hello.yml")
    assert "hello from a wheel" in printed, printed
    shown = environment.run(environment.dora, "--help")
    for word in ("cluster", "record", "replay", "ui"):
        assert f"\n  {word} " in shown, shown


def smoke_cluster(environment: Environment) -> None:
    port = str(free_port())
    with environment.service("coordinator", "--port", port) as process:
        wait_for_health(int(port), process)
        environment.run(environment.dora, "cluster", "status", "--coordinator-port", port)
    (environment.home / "cluster.yml").write_text("machines: 3\n")
    assert "cluster.yml:1:" in environment.fails(environment.dora, "cluster", "up", "cluster.yml")
    ours = {one for one in environment.distributions() if one.startswith("dora-")}
    assert not ours & {"dora-cli", "dora-recordings", "dora-ui"}


def smoke_recordings(environment: Environment) -> None:
    write_hello(environment)
    environment.run(environment.dora, "record", "hello.yml", "-o", "hello.mcap")
    assert "talker/greeting" in environment.run(environment.dora, "recording", "info", "hello.mcap")
    assert "hello from a wheel" in environment.run(environment.dora, "replay", "hello.mcap")


def smoke_ui(environment: Environment) -> None:
    write_hello(environment)
    environment.run(environment.dora, "graph", "hello.yml")
    assert "talker" in (environment.home / "hello-graph.html").read_text()
    assert "dora-rerun needs rerun" in environment.fails(environment.folder / "bin" / "dora-rerun")
    printed = environment.fails(environment.folder / "bin" / "dora-foxglove")
    assert "dora-foxglove needs dora_recordings" in printed


def smoke_ros2(environment: Environment) -> None:
    environment.run(environment.python, "-c", "import dora_ros2.errors")
    expected = {"dora-node-api", "dora-ros2", "eclipse-zenoh", "numpy", "pyarrow", "xxhash"}
    assert environment.distributions() == expected


def smoke_gate(environment: Environment) -> None:
    assert "--hold-after" in environment.run(environment.folder / "bin/dora-gate", "--help")
    assert environment.distributions() == {"dora-gate", "dora-node-api", "numpy", "pyarrow"}


def smoke_lerobot(environment: Environment) -> None:
    steps = environment.folder / "bin/dora-lerobot-steps"
    assert "--hold-after" in environment.run(steps, "--help")
    printed = environment.fails(environment.folder / "bin/dora-lerobot-robot")
    assert "dora-lerobot-robot needs LeRobot" in printed
    expected = {"dora-node-api", "lerobot-robot-dora", "numpy", "pillow", "pyarrow"}
    assert environment.distributions() == expected


def smoke_testing(environment: Environment) -> None:
    write_hello(environment)
    (environment.home / "test_hello.py").write_text(TEST)
    environment.run(environment.python, "-m", "pytest", "-q")
    ours = {one for one in environment.distributions() if one.startswith("dora-")}
    simulated = {"dora-coordinator", "dora-daemon"}
    assert ours == {"dora-config", "dora-node-api", "dora-testing", *simulated}


SMOKE: dict[str, Callable[[Environment], None]] = {
    "dora-config": smoke_config,
    "dora-node-api": smoke_node_api,
    "dora-coordinator": smoke_coordinator,
    "dora-daemon": smoke_daemon,
    "dora-cli-core": smoke_cli,
    "dora-cli": smoke_whole,
    "dora-cluster": smoke_cluster,
    "dora-recordings": smoke_recordings,
    "dora-ros2": smoke_ros2,
    "dora-gate": smoke_gate,
    "dora-testing": smoke_testing,
    "dora-ui": smoke_ui,
    "lerobot-robot-dora": smoke_lerobot,
}


def main() -> None:
    os.environ.pop("PYTHONPATH", None)
    wheels = build(Path(sys.argv[1]).resolve())
    places: SimpleQueue[Path] = SimpleQueue()

    def check(name: str) -> None:
        place = places.get()
        environment = Environment(place / "v", name, wheels)
        SMOKE[name](environment)
        print(f"{name}: works alone, beside {len(environment.distributions()) - 1} others")
        shutil.rmtree(environment.folder)
        places.put(place)

    # A short path: the sockets of a runner lie under this home.
    with (
        tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for number in range(AT_ONCE):
            places.put(Path(folder, str(number)))
        list(pool.map(check, SMOKE))


if __name__ == "__main__":
    main()
