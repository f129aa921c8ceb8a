"""The node behind `ros2:` in a dataflow.

The main thread takes events of the dataflow. The keeper thread connects to ROS, and opens each
channel once its type is known.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dora_node_api import Node as DoraNode
from dora_ros2.channels import (
    ActionCaller,
    ActionHost,
    BridgeChannel,
    PublishedTopic,
    Sender,
    ServiceCaller,
    ServiceHost,
    SubscribedTopic,
)
from dora_ros2.errors import Ros2Error
from dora_ros2.transport import Choice, Connection, choose_transport, logger
from dora_ros2.types import Types
from dora_ros2.zenoh.descriptions import serve_descriptions

SETTINGS = "DORA_ROS2"
"""Variable with the `ros2` block of the node, as JSON."""
_KEEPER_SECONDS = 0.5
_PATIENCE_SECONDS = 1.5
_GRAPH_SECONDS = 1.0
_FINISH_SECONDS = 0.05
_ANY = "*"


class Bridge:
    """One `ros2:` node."""

    def __init__(self, node: DoraNode, settings: Mapping[str, Any]) -> None:
        self._node = node
        self._settings = settings
        self._types = Types([Path.cwd()])
        self._sender = Sender(node)
        self._channels = _channels(
            settings, self._sender, self._types, node.node_config()["outputs"]
        )
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._router: str | None = None
        self._since = time.monotonic()
        self._waiting: str | None = None
        self._shown_changes, self._shown_at = -1, 0.0
        self._failure: Exception | None = None

    def run(self) -> None:
        """Bridge until the dataflow stops or all inputs have ended. Raises Ros2Error."""
        keeper = threading.Thread(target=self._keep, name="ros2-keeper", daemon=True)
        keeper.start()
        while self._failure is None:
            event = self._node.next(timeout=_KEEPER_SECONDS)
            if event is None:
                break
            if event["type"] == "INPUT":
                for port, channel in self._channels:
                    if port in (event["id"], _ANY):
                        channel.receive(event["id"], event["value"], event["metadata"])
            elif event["type"] == "STOP":
                if event.get("id") == "ALL_INPUTS_CLOSED":
                    self._finish()
                break
        self._stopping.set()
        self._wake.set()
        keeper.join(_KEEPER_SECONDS * 2)  # it may wait for a router
        for _, channel in self._channels:
            channel.close()
        self._sender.close()
        if self._connection is not None:
            self._connection.close()
        if self._failure is not None:
            raise self._failure

    def _finish(self) -> None:
        """Wait for what is under way; each channel limits how long."""
        while self._failure is None and any(
            channel.busy_until() > time.monotonic() for _, channel in self._channels
        ):
            self._stopping.wait(_FINISH_SECONDS)

    def _keep(self) -> None:
        try:
            choice = _choice(self._settings)
            logger.info("transport %s: %s", choice.kind, choice.reason)
            transport = self._settings.get("transport") or {}
            self._connection = connection = Connection(
                choice.kind,
                config=transport.get("config_uri", ""),
                profile=transport.get("compatibility"),
                on_state=self._router_changed,
                on_graph=self._wake.set,
            )
            name = self._settings.get("node_name") or _ros_name(self._node.node_id)
            node = connection.node(name, self._settings.get("namespace", "/"))
            if choice.kind == "zenoh":
                serve_descriptions(node, self._types.description)
            while not self._stopping.is_set():
                found = [one.update(node, connection.graph) for _, one in self._channels]
                self._show([self._router, *found])
                self._show_graph(connection, node.full_name)
                self._wake.wait(_KEEPER_SECONDS)
                self._wake.clear()
        except Ros2Error as error:
            self._failure = error

    def _router_changed(self, waiting: str | None) -> None:
        self._router = waiting
        if self._connection is None:  # it is not connected yet, and may wait for long
            self._show([waiting])
        self._wake.set()

    def _show_graph(self, connection: Connection, name: str) -> None:
        """Show the graph on the page, if it has changed and was not shown a moment ago."""
        changes, now = connection.graph.changes, time.monotonic()
        if changes != self._shown_changes and now >= self._shown_at + _GRAPH_SECONDS:
            self._shown_changes, self._shown_at = changes, now
            summary = connection.graph.summary(name, dds=connection.kind == "dds")
            self._node.report_ros_graph(summary)

    def _show(self, found: Sequence[str | None]) -> None:
        """Show in the lists of dora what the bridge waits for."""
        waiting = "; ".join(text for text in found if text) or None
        if waiting is None:
            self._since = time.monotonic()
        elif self._connection is not None and time.monotonic() - self._since < _PATIENCE_SECONDS:
            return  # what is needed may be about to appear
        if waiting != self._waiting:
            self._waiting = waiting
            self._node.report_waiting(waiting)


def _choice(settings: Mapping[str, Any]) -> Choice:
    transport = settings.get("transport") or {}
    if "kind" in transport:
        return Choice(transport["kind"], "the dataflow file names it")
    if "topics" not in settings:
        return Choice("zenoh", "services and actions need it")
    return choose_transport(os.environ, config=transport.get("config_uri", ""))


def _channels(
    settings: Mapping[str, Any],
    sender: Sender,
    types: Types,
    outputs: Sequence[str],
) -> list[tuple[str, BridgeChannel]]:
    """Return the channels and the input of each: `_ANY`, or empty for none."""
    if "topics" in settings:
        found: list[tuple[str, BridgeChannel]] = []
        for topic in settings["topics"]:
            full = {"qos": settings.get("qos"), **topic}
            if topic.get("direction") == "publish":
                found.append((topic["input"], PublishedTopic(full, sender, types)))
            else:
                found.append(("", SubscribedTopic(full, sender, types)))
        return found
    kind = "service" if "service" in settings else "action"
    one = {
        ("service", "client"): ServiceCaller,
        ("service", "server"): ServiceHost,
        ("action", "client"): ActionCaller,
        ("action", "server"): ActionHost,
    }[kind, settings["role"]]
    return [(_ANY, one(settings, outputs, sender, types))]


def _ros_name(node_id: str) -> str:
    name = re.sub(r"\W", "_", node_id, flags=re.ASCII)
    return f"_{name}" if name[0].isdigit() else name


def main() -> None:
    """Run the bridge of the node that started this process."""
    settings = json.loads(os.environ[SETTINGS])
    with DoraNode() as node:
        Bridge(node, settings).run()
