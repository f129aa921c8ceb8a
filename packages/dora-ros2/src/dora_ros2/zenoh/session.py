"""The Zenoh session of a ROS participant: configuration, router, graph.

Callbacks run on Zenoh's threads. They must not wait; an exception is logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zenoh

from dora_ros2.connection import RosNode
from dora_ros2.errors import SessionError
from dora_ros2.zenoh import ROUTER
from dora_ros2.zenoh.endpoints import (
    ServiceClient,
    ServiceServer,
    Subscription,
    ZenohConnection,
    ZenohPublisher,
    direct,
    outside_callback,
    undeclare,
)
from dora_ros2.zenoh.graph import FOLLOWER, Profile
from dora_ros2.zenoh.tokens import SPACE, mangle

_DEFAULTS: Mapping[str, Any] = {
    "connect/endpoints": [ROUTER],
    "connect/timeout_ms": {"router": -1, "peer": -1, "client": 1000},
    "connect/exit_on_failure": {"router": False, "peer": False, "client": True},
    "connect/retry": {
        "period_init_ms": 200,
        "period_max_ms": 2000,
        "period_increase_factor": 2,
    },
    "scouting/multicast/enabled": False,
    # Cached messages of transient local publishers are ordered by time.
    "timestamping/enabled": {"router": True, "peer": True, "client": True},
}
"""Defaults of rmw_zenoh, for settings that the user's session file does not have."""
_LISTEN = {"router": ["tcp/localhost:7447"], "peer": ["tcp/localhost:0"], "client": []}
_LOOPBACK = re.compile(r"/(localhost|127\.\d+\.\d+\.\d+|\[::1\]):")
_ROUTER_SECONDS = 1.0
"""Longest wait for the router when a session opens."""
_logger = logging.getLogger(__name__)


def configuration(
    environ: Mapping[str, str],
    *,
    config: str | Path = "",
    router: str = "",
    client: bool = False,
) -> zenoh.Config:
    """Return Zenoh's configuration; the file `config` is used instead of that in `environ`.

    `client`: be one, if neither file nor override chooses a mode.

    Raises SessionError.
    """
    source = str(config) or environ.get("ZENOH_SESSION_CONFIG_URI", "")
    try:
        made = zenoh.Config.from_file(source.removeprefix("file://")) if source else zenoh.Config()
    except zenoh.ZError as error:
        raise SessionError(f"cannot read the Zenoh session file {source}: {_text(error)}") from None
    for path, value in _DEFAULTS.items():
        if made.get_json(path) in ("null", "[]"):
            made.insert_json5(path, json.dumps(value))
    if not source:
        # The default of rmw_zenoh; a killed process would leave its files in /dev/shm.
        made.insert_json5("transport/shared_memory/enabled", "false")
    # Zenoh's own default is every interface.
    if made.get_json("listen/endpoints") == zenoh.Config().get_json("listen/endpoints"):
        made.insert_json5("listen/endpoints", json.dumps(_LISTEN))
    for part in filter(str.strip, environ.get("ZENOH_CONFIG_OVERRIDE", "").split(";")):
        path, _, text = part.partition("=")
        try:
            made.insert_json5(path.strip(), text.strip())
        except zenoh.ZError as error:
            raise SessionError(
                f'ZENOH_CONFIG_OVERRIDE: "{part.strip()}": {_text(error)};'
                " expected path=value;path=value"
            ) from None
    if router:
        try:
            made.insert_json5("connect/endpoints", json.dumps([router]))
        except zenoh.ZError:
            raise SessionError(
                f'"{router}" is not the address of a router; write it as tcp/HOST:7447'
            ) from None
    if made.get_json("mode") == "null":
        # The router of ROS does not forward between peers, and those elsewhere listen on loopback.
        is_local = _LOOPBACK.search(made.get_json("connect/endpoints"))
        made.insert_json5("mode", '"peer"' if is_local and not client else '"client"')
    return made


def open_router(listen: str = ROUTER) -> zenoh.Session:
    """Open a router that forwards like the router of ROS, for a computer without ROS.

    Raises SessionError.
    """
    made = zenoh.Config()
    try:
        for path, value in {
            "mode": "router",
            "listen/endpoints": [listen],
            "connect/endpoints": [],
            "scouting/multicast/enabled": False,
            # peers connect to each other; the router does not forward between them
            "routing/router/peers_failover_brokering": False,
        }.items():
            made.insert_json5(path, json.dumps(value))
        return zenoh.open(made)
    except zenoh.ZError as error:
        raise SessionError(f"cannot listen at {listen}: {_text(error)}") from None


class ZenohSession(ZenohConnection):
    """A session in one ROS domain.

    `on_state` is called with a text while the session waits for a router, and with None when it is
    connected.
    """

    kind = "zenoh"
    publisher = ZenohPublisher
    subscription = Subscription
    service_server = ServiceServer
    service_client = ServiceClient

    def __init__(
        self,
        *,
        domain: int | None = None,
        router: str = "",
        config: str | Path = "",
        profile: Profile | None = None,
        on_state: Callable[[str | None], None] | None = None,
        on_graph: Callable[[], None] | None = None,
        client: bool = False,
        wait_seconds: float = math.inf,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Open a session: a peer, or a client if `client` or if its router is on another machine.

        A client waits here for its router, at most for `wait_seconds`; peers connect later.

        Raises SessionError, InvalidName.
        """
        super().__init__(domain, environ, on_graph)
        self.waiting: str | None = None
        self.profile = profile or Profile.REP2016
        self.follows = profile is None
        self.enclave = FOLLOWER if self.follows else ""
        self._on_state = on_state
        self._routers: set[str] = set()
        made = configuration(environ, config=config, router=router, client=client)
        endpoints = json.loads(made.get_json("connect/endpoints"))
        is_router = json.loads(made.get_json("mode")) == "router"
        if isinstance(endpoints, dict):
            endpoints = endpoints.get(json.loads(made.get_json("mode")), [])
        self.router = " or ".join(str(endpoint) for endpoint in endpoints)
        waits = self.router and not is_router
        self._missing = f"waits for a Zenoh router at {self.router}" if waits else None
        self._tokens = f"{SPACE}/{self.domain}/**"
        self._zenoh = self._open(made, wait_seconds)
        self.id = str(self._zenoh.zid())
        self._watchers: list[Any] = [
            self._zenoh.info.declare_transport_events_listener(
                direct(self._transport_changed), history=True
            ),
            self._zenoh.liveliness().declare_subscriber(
                self._tokens, direct(self._token_changed), history=True
            ),
        ]
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._routers or not self._missing, _ROUTER_SECONDS
            )
        if not found:
            self._add_tls_problem(made)
        self._report()

    def load_graph(self, seconds: float) -> None:
        """Wait until the router has sent what it has, at most for `seconds`.

        Its answer to a query follows the history of the subscriber over the same connection.

        Raises SessionError: the session is closed.
        """
        for _ in self.raw.liveliness().get(self._tokens, timeout=seconds):
            pass

    def announce(self, node: RosNode) -> None:
        self.nodes[node] = self.raw.liveliness().declare_token(str(node.token))

    def withdraw(self, node: RosNode) -> None:
        undeclare(self.nodes.pop(node))

    def _disconnect(self) -> None:
        """Close the session: from a callback, by another thread soon after."""

        def disconnect() -> None:
            for watcher in self._watchers:
                with contextlib.suppress(zenoh.ZError):
                    watcher.undeclare()
            with contextlib.suppress(zenoh.ZError):
                self._zenoh.close()  # type: ignore[no-untyped-call]

        outside_callback(disconnect)

    def _open(self, made: zenoh.Config, wait_seconds: float) -> zenoh.Session:
        is_client = json.loads(made.get_json("mode")) == "client"
        deadline = time.monotonic() + wait_seconds
        while True:
            left = deadline - time.monotonic()
            if is_client and left < _ROUTER_SECONDS:
                made.insert_json5("connect/timeout_ms", str(max(1, int(left * 1000))))
            try:
                return zenoh.open(made)
            except zenoh.ZError as error:
                if not is_client or "connect" not in str(error).lower():
                    raise SessionError(f"cannot open a Zenoh session: {_text(error)}") from None
            problem = self._add_tls_problem(made)
            if time.monotonic() >= deadline:
                raise SessionError(f"no Zenoh router answers at {self.router}{problem}")
            self._report()
            time.sleep(max(0.0, min(_ROUTER_SECONDS / 2, deadline - time.monotonic())))

    def _add_tls_problem(self, made: zenoh.Config) -> str:
        """Add to what the session waits for why a router with TLS is not reached; return it."""
        problems = (tls_problem(made, endpoint) for endpoint in self.router.split(" or "))
        problem = next((f": {one}" for one in problems if one is not None), "")
        self._missing = f"waits for a Zenoh router at {self.router}{problem}"
        return problem

    def _transport_changed(self, event: zenoh.TransportEvent) -> None:
        if event.transport.whatami != zenoh.WhatAmI.ROUTER:
            return
        opened = event.kind == zenoh.SampleKind.PUT
        (self._routers.add if opened else self._routers.discard)(str(event.transport.zid))
        self.notify()
        self._report()

    def _report(self) -> None:
        with self.lock:
            waiting = None if self._routers else self._missing
            if waiting != self.waiting and not self.closed:
                self.waiting = waiting
                if self._on_state is not None:
                    self._on_state(waiting)

    def _token_changed(self, sample: zenoh.Sample) -> None:
        text = str(sample.key_expr)
        with self._changed:
            if sample.kind == zenoh.SampleKind.PUT:
                warning = self.graph.add(text)
                if warning:
                    _logger.warning(warning)
            else:
                self.graph.remove(text)
            self._changed.notify_all()
        if self.follows:
            self._detect_profile()
        if self._has_endpoint_of(text):
            self.check_matches()
        if self._on_graph is not None and not self.closed:
            self._on_graph()

    def _has_endpoint_of(self, token: str) -> bool:
        """Whether a node of this process has an endpoint with the name in a token."""
        names = (
            f"/{mangle(one.name)}/" for node in list(self.nodes) for one in list(node.endpoints)
        )
        return any(name in token for name in names)

    def _detect_profile(self) -> None:
        found = self.graph.profiles()
        if len(found) == 2:
            self.follows = False
            _logger.warning(
                "nodes of ROS 2 Humble and of newer versions share domain %d; they cannot talk to"
                " each other, and this session stays %s: choose its profile",
                self.domain,
                self.profile,
            )
        elif found and self.profile not in found:
            self.profile = found.pop()
            _logger.info("the other nodes have the profile %s", self.profile)
            outside_callback(self._profile_changed)

    def _profile_changed(self) -> None:
        with contextlib.suppress(SessionError):  # closed meanwhile
            for endpoint in [one for node in list(self.nodes) for one in list(node.endpoints)]:
                endpoint.refresh()


def tls_problem(made: zenoh.Config, endpoint: str) -> str | None:
    """Return why the TLS settings do not fit a router; None if they do, or it does not answer.

    Zenoh logs this problem but does not report it.
    """
    protocol, _, address = endpoint.partition("/")
    host, _, port = address.partition("#")[0].partition("?")[0].rpartition(":")
    if protocol != "tls" or not port.isdigit():
        return None
    settings = json.loads(made.get_json("transport/link/tls"))
    names = ("root_ca_certificate", "connect_certificate", "connect_private_key")
    authority, certificate, key = (settings.get(name) for name in names)
    for name, file in zip(names, (authority, certificate, key), strict=True):
        if file and not os.access(file, os.R_OK):
            return f"cannot read the {name} {file}"
    try:
        context = ssl.create_default_context(cafile=authority)
        context.check_hostname = settings.get("verify_name_on_connect") is not False
        if settings.get("enable_mtls"):
            context.load_cert_chain(certificate, key)
        to = (host.strip("[]"), int(port))
        with (
            socket.create_connection(to, _ROUTER_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=to[0]) as held,
        ):
            held.recv(1)  # TLS 1.3: the router checks our certificate after the handshake
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except ssl.SSLError as error:
        return f"TLS fails: {error.reason or error}"
    except OSError:
        return None
    return None


def _text(error: Exception) -> str:
    """Return Zenoh's error without the place in its sources."""
    return str(error).partition(" at /")[0].strip().rstrip(".!")
