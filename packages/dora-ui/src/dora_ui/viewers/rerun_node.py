"""`dora-rerun`: a node that shows its inputs in Rerun.

`OPERATING_MODE` is SPAWN (start a viewer; the default), CONNECT (a viewer at RERUN_SERVER_ADDR) or
SAVE (a file).
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dora_node_api.data.visual_values import Joints

from .rerun_archetypes import entities
from .robot_model import RobotModel, robot_models
from .viewer_node import CannotShow, DataViewer, ViewerInput, ViewerMessage, run_viewer

if TYPE_CHECKING:
    from dora_node_api.node import Node

APPLICATION = "dora-rerun"
LIBRARY = "rerun-sdk>=0.27"
"""Library of the extra `rerun` of this wheel."""
USUAL_ADDRESS = "127.0.0.1:9876"
PROBE_SECONDS = 0.5
"""Time for a viewer to accept a connection."""
FLUSH_SECONDS = 2.0
"""Seconds for a viewer to receive the sent messages."""
START_SECONDS = 5.0
"""Time for a spawned viewer to listen."""


RETRY_SECONDS = 1.0
"""Seconds between two attempts, and between two checks of a connection."""


class OperatingMode(StrEnum):
    """Values of OPERATING_MODE."""

    SPAWN = "SPAWN"
    CONNECT = "CONNECT"
    SAVE = "SAVE"


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a viewer."""

    host: str
    port: int
    url: str


def read_mode(environ: Mapping[str, str]) -> OperatingMode:
    """Return the mode of OPERATING_MODE. Raises CannotShow for an unknown one."""
    given = environ.get("OPERATING_MODE", OperatingMode.SPAWN)
    try:
        return OperatingMode(given.upper())
    except ValueError:
        modes = ", ".join(OperatingMode)
        raise CannotShow(f'OPERATING_MODE is "{given}"; expected one of {modes}') from None


def read_address(environ: Mapping[str, str]) -> Address:
    """Return the address of RERUN_SERVER_ADDR: `HOST:PORT`, or a URL. Raises CannotShow."""
    given = environ.get("RERUN_SERVER_ADDR", USUAL_ADDRESS)
    url = given if "://" in given else f"rerun+http://{given}/proxy"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise CannotShow(f'RERUN_SERVER_ADDR is "{given}"; expected HOST:PORT')
    return Address(host, port, url)


class RerunViewer(DataViewer):
    """A recording of Rerun, sent to a viewer or written to a file."""

    def __init__(
        self, recording: Any, robots: Mapping[str, RobotModel], readme: str | None
    ) -> None:
        self._recording = recording
        self._robots = robots
        self._readme = readme

    def show(self, message: ViewerMessage) -> None:
        if message.kind is None or message.visual is None:
            raise ValueError(
                f"values of type {message.array.type} have no display in Rerun;"
                " set the metadata `primitive`"
            )
        recording, name = self._recording, message.input.name
        recording.set_time("timestamp", timestamp=message.nanoseconds / 1e9)
        robot = self._robots.get(name.replace("jointstate_", ""))
        if robot is not None and isinstance(message.visual, Joints):
            robot.move(recording, message.visual)
            return
        for one in entities(name, message.kind, message.visual, message.metadata):
            recording.log(one.path, one.archetype, strict=True)

    def log_start(self) -> None:
        """Log the data that does not come from inputs."""
        import rerun as rr

        if self._readme is not None:
            document = rr.TextDocument(self._readme, media_type=rr.MediaType.MARKDOWN)
            self._recording.log("README", document, static=True)
        for robot in self._robots.values():
            robot.log(self._recording)

    def close(self) -> None:
        self._recording.flush(timeout_sec=FLUSH_SECONDS)
        self._recording.disconnect()


class ConnectedViewer(RerunViewer):
    """Sends to a viewer; drops messages while it is closed, and connects when it returns."""

    def __init__(
        self,
        recording: Any,
        robots: Mapping[str, RobotModel],
        readme: str | None,
        address: Address,
        log: Callable[[str, str], None],
        start_seconds: float,
    ) -> None:
        """``start_seconds``: time for the viewer to start before its absence is reported."""
        super().__init__(recording, robots, readme)
        self._address = address
        self._log = log
        self._open = False
        """Whether messages can be sent; others are dropped."""
        self._check_at = 0.0
        self._announce_at = time.monotonic() + start_seconds

    def accepts(self, source: ViewerInput) -> bool:
        self.check()
        return self._open

    def check(self) -> None:
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + RETRY_SECONDS
        if self._open:
            self._flush()
        else:
            self._connect()

    def _connect(self) -> None:
        address = self._address
        try:
            with socket.create_connection((address.host, address.port), PROBE_SECONDS):
                pass
        except OSError as error:
            if time.monotonic() >= self._announce_at:
                self._announce_at = math.inf
                self._log(
                    "warn",
                    f"no Rerun viewer listens at {address.host}:{address.port} ({error});"
                    " messages are dropped until one does",
                )
            return
        self._recording.connect_grpc(address.url)
        self._open = True
        self._announce_at = math.inf
        self._log("info", f"connected to the Rerun viewer at {address.host}:{address.port}")
        self.log_start()

    def _flush(self) -> None:
        """Close the link if the viewer is gone; a viewer that is only slow keeps it."""
        try:
            self._recording.flush(timeout_sec=FLUSH_SECONDS)
        except RuntimeError as error:
            if "timeout" in str(error).lower() or "timed out" in str(error).lower():
                return
            self._open = False
            self._log(
                "warn",
                "the Rerun viewer closed the connection; messages are dropped until one"
                f" listens at {self._address.host}:{self._address.port}",
            )

    def close(self) -> None:
        if self._open:
            with suppress(RuntimeError):
                super().close()


def _start(node: Node, mode: OperatingMode, robots: Mapping[str, RobotModel]) -> RerunViewer:
    import rerun as rr

    # the same for all starts of the node, so that a restart continues the recording
    name = f"{node.dataflow_id()}-{node.node_id}"
    recording = rr.RecordingStream(APPLICATION, recording_id=name)
    readme = os.environ.get("README")
    if mode is OperatingMode.SAVE:
        viewer = RerunViewer(recording, robots, readme)
        own, hidden = (Path(out, node.dataflow_id()) for out in ("out", ".dora/out"))
        file = (hidden if hidden.is_dir() else own) / f"archive-{node.dataflow_id()}.rrd"
        try:
            file.parent.mkdir(0o700, parents=True, exist_ok=True)
            file = _unused(file)
            file.touch(0o600)
            recording.save(file)
        except (OSError, RuntimeError) as error:
            raise CannotShow(f"cannot write {file.absolute()}: {error}") from error
        viewer.log_start()
        return viewer
    address = read_address(os.environ if mode is OperatingMode.CONNECT else {})
    start_seconds = 0.0
    if mode is OperatingMode.SPAWN:
        spawn_viewer(recording, address)
        start_seconds = START_SECONDS
    return ConnectedViewer(recording, robots, readme, address, node.log, start_seconds)


def _unused(file: Path) -> Path:
    """Return ``file``, or a numbered name if it exists, for other starts of the node."""
    number, free = 1, file
    while free.exists():
        number += 1
        free = file.with_stem(f"{file.stem}-{number}")
    return free


def spawn_viewer(recording: Any, address: Address) -> None:
    """Start a viewer, unless one listens already. Raises CannotShow."""
    import rerun as rr

    beside = Path(sys.executable).with_name("rerun")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rerun")
    if found is None:
        raise CannotShow(
            "the program `rerun` is not on PATH; install it in the environment of the node with:"
            f' pip install "{LIBRARY}"'
        )
    limit = os.environ.get("RERUN_MEMORY_LIMIT", "25%")
    try:
        rr.spawn(
            port=address.port,
            connect=False,
            memory_limit=limit,
            executable_path=found,
            recording=recording,
        )
    except RuntimeError as error:
        raise CannotShow(
            f"cannot start the Rerun viewer: {error}; without a display, use OPERATING_MODE=SAVE"
            " or CONNECT"
        ) from error


def main() -> None:
    """Run the node; exits with 1 and one sentence if it cannot start."""
    try:
        mode = read_mode(os.environ)
        read_address(os.environ)
        import rerun  # noqa: F401

        robots = robot_models(os.environ)
    except ImportError as error:
        sys.exit(
            f"dora-rerun needs {error.name}; install it in the environment of the node with:"
            f' pip install "{LIBRARY}"'
        )
    except CannotShow as error:
        sys.exit(str(error))
    keeps_all = mode is OperatingMode.SAVE
    run_viewer(lambda node: _start(node, mode, robots), keeps_all=keeps_all)
