"""Connections without a token, in great numbers, beside commands of this machine."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.dora import run_dora
from support.fleets.coordinator import RunningCoordinator, running_coordinator
from support.requirements import require_root
from support.waiting import PATIENCE, wait_until

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.control import ClusterStatus
from dora_coordinator.io.listening import _owner, _source

pytestmark = pytest.mark.integration

SILENT = 1_300
HALF_OPEN = 6_000
NOBODY = 65534

FLOOD = """
import os, resource, selectors, socket, sys

port, count, account = map(int, sys.argv[1:])
os.setuid(account)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
watched = selectors.DefaultSelector()
opened = 0
while True:
    try:
        connection = socket.socket()
        connection.connect(("127.0.0.1", port))
        connection.send(b"\\x16\\x03\\x01")  # a TLS handshake that does not go on
    except OSError:
        continue
    watched.register(connection, selectors.EVENT_READ)
    opened += 1
    if opened == count:
        print("flooding", flush=True)
    while len(watched.get_map()) >= count or opened % 100 == 0 and watched.select(0):
        for key, _ in watched.select():
            watched.unregister(key.fileobj)
            key.fileobj.close()
"""


@contextmanager
def flood(port: int) -> Iterator[None]:
    """Hold and renew thousands of unfinished handshakes from another account."""
    numbers = map(str, (port, HALF_OPEN, NOBODY))
    command = [sys.executable, "-c", FLOOD, *numbers]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"flooding\n"
            yield
        finally:
            process.kill()


def answers(client: CoordinatorClient) -> bool:
    return client.request(ClusterStatus(), timeout=PATIENCE).machines == ()


def lists_dataflows(coordinator: RunningCoordinator) -> bool:
    return run_dora("list", "--coordinator-port", str(coordinator.port)).code == 0


def test_silent_connections_do_not_keep_others_out() -> None:
    """The coordinator has fewer descriptors than there are silent connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * SILENT), hard))
    try:
        with ExitStack() as stack:
            limit = ("--set", "max_pending_connections=400")
            coordinator = stack.enter_context(running_coordinator("--store", "memory", *limit))
            resource.prlimit(coordinator.process.pid, resource.RLIMIT_NOFILE, (500, 500))
            client = stack.enter_context(CoordinatorClient(coordinator.endpoint))
            assert answers(client)
            for _ in range(SILENT):
                address = ("127.0.0.1", coordinator.port)
                stack.enter_context(socket.create_connection(address, PATIENCE))
            assert lists_dataflows(coordinator)
            assert answers(client)
            assert coordinator.process.stderr.count("too many connections without a token") == 1
            assert "cannot accept" not in coordinator.process.stderr
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_unfinished_handshakes_of_another_account_do_not_keep_others_out() -> None:
    require_root()
    with running_coordinator("--store", "memory") as coordinator:
        resource.prlimit(coordinator.process.pid, resource.RLIMIT_NOFILE, (1500, 1500))
        with CoordinatorClient(coordinator.endpoint) as client, flood(coordinator.port):
            for number in range(3):
                # The flood takes a core: one handshake may take longer than a client waits.
                wait_until(lambda: lists_dataflows(coordinator), what=f"answer {number}")
            assert answers(client)
        assert f"most of them from this machine's account {NOBODY}; " in coordinator.process.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_local_client_is_known_by_its_account(host: str) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        client = socket.create_connection((host, listener.getsockname()[1]), PATIENCE)
        accepted, _ = listener.accept()
        with accepted:
            ends = accepted.getpeername(), accepted.getsockname()
            with client:
                assert _source(accepted) == f"this machine's account {os.getuid()}"
            assert _owner(*ends) in (None, os.getuid(), 0)
