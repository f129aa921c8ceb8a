"""Foreign programs at a link's port, and garbage from a member of the cluster."""

from __future__ import annotations

import json
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon.link.certificates import Authority
from daemon.link.machine import Machine, connected, connected_stream, deliveries, introduce
from support.queues import message, number_of
from support.waiting import wait_until

from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.messages import Note
from dora_node_api.data import arrow

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]

INTRUDER = """
import json, select, sys, zenoh
endpoint, credentials, frames = json.loads(sys.argv[1])
config = zenoh.Config()
protocol = "tls" if credentials else "tcp"
settings = {
    "mode": "client", "scouting/multicast/enabled": False, "scouting/gossip/enabled": False,
    "connect/endpoints": [f"{protocol}/{endpoint}"], "connect/timeout_ms": 2000,
    "connect/exit_on_failure": True,
}
if credentials:
    settings["transport/link/tls"] = {
        "root_ca_certificate": credentials["ca"], "verify_name_on_connect": False,
        "enable_mtls": bool(credentials.get("cert")),
        **({"connect_private_key": credentials["key"], "connect_certificate": credentials["cert"]}
           if credentials.get("cert") else {}),
    }
for name, value in settings.items():
    config.insert_json5(name, json.dumps(value))
received = []
try:
    session = zenoh.open(config)
    subscriber = session.declare_subscriber("**", lambda sample: received.append(1))
    while not select.select([sys.stdin], [], [], 0.3)[0]:
        for key, frame in frames:
            session.put(key, bytes.fromhex(frame))
    alone = not session.info.links()
except zenoh.ZError:
    alone = True
print(json.dumps({"alone": alone, "received": len(received)}), flush=True)
import os
os._exit(0)
"""
"""Sends the frames again and again until its standard input is closed."""


@contextmanager
def intruder(
    endpoint: str, credentials: dict[str, str] | None, frames: list[tuple[str, bytes]]
) -> Iterator[Callable[[], dict[str, object]]]:
    """Run another program with Zenoh at the link's port; yields a function that ends it.

    That returns whether the program is connected to no link, and what it has received.
    """
    argument = json.dumps([endpoint, credentials, [(k, f.hex()) for k, f in frames]])
    words = [sys.executable, "-c", INTRUDER, argument]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield lambda: json.loads(process.communicate(timeout=60)[0])
        finally:
            process.kill()


KEY = "dora/test/0198-flow/link/b/a"


@pytest.mark.parametrize("who", ["no certificate", "a foreign certificate", "no TLS"])
def test_a_foreign_program_is_refused(make: Make, home: Path, who: str) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure")
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    foreign = Authority("foreign").sign(home / "foreign", "a")
    ours = str(home / "credentials-b" / "ca.pem")
    credentials = {
        "no certificate": {"ca": ours},
        "a foreign certificate": {
            "ca": ours, "cert": str(foreign / "cert.pem"), "key": str(foreign / "key.pem"),
        },
        "no TLS": None,
    }[who]  # fmt: skip
    sender.send("o", arrow.encode(message(0, 100)))
    with intruder(b.endpoints[0], credentials, [(KEY, b"garbage")]) as ended:
        sender.send("o", arrow.encode(message(1, 100)))
        assert ended() == {"alone": True, "received": 0}
    assert [number_of(next(coming).data) for _ in range(2)] == [0, 1]


def test_the_address_of_another_machine_is_not_taken_for_the_own(make: Make) -> None:
    """A robot b that reports the address of c as its own gets nothing for itself or c."""
    a, b, c = make("a"), make("b"), make("c")
    a.outgoing("n/o", "b")
    b.incoming("n/o", "a", "m/i")
    for machine in (a, b, c):
        machine.start_link()
    a.meet(b, endpoints=c.endpoints)
    b.meet(a, endpoints=c.endpoints)
    wait_until(lambda: a.state_of("b") not in ("", "connected"), what="a report of a")
    report = a.wait_for_peer(machine="b")
    assert report.state != "connected"
    assert c.state_of("a") == c.state_of("b") == ""
    a.meet(b)
    b.meet(a)
    connected(a, b)


def test_a_port_answers_nothing_but_a_handshake(make: Make) -> None:
    a, b = make("a"), make("b")
    a.outgoing("n/o", "b")
    b.incoming("n/o", "a", "m/i")
    introduce(a, b)
    connected(a, b)
    host, _, port = b.endpoints[0].rpartition(":")
    dice = random.Random(1)
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(dice.randbytes(dice.randrange(1, 5000)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(OSError, match=r"(?i)certificate|reset|eof|closed|broken"):
        connect_without_certificate(host, int(port), context)
    assert b.state_of("a") == "connected"


def connect_without_certificate(host: str, port: int, context: ssl.SSLContext) -> None:
    """Raises OSError when the other side closes the connection."""
    with (
        socket.create_connection((host, port), timeout=60) as connection,
        context.wrap_socket(connection) as secured,
    ):
        secured.sendall(b"hello")
        if secured.recv(1) == b"":
            raise ConnectionResetError("closed")


def test_garbage_from_a_member_is_ignored(make: Make, home: Path) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure")
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    folder = home / "credentials-a"
    credentials = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    dice = random.Random(5)
    samples = [(KEY, dice.randbytes(dice.randrange(0, 400))) for _ in range(100)]
    for kind in range(14):
        for _ in range(20):
            head = frames.head(kind, dice.randrange(1 << 63), 0, stream=1)
            samples.append((KEY, head + dice.randbytes(dice.randrange(0, 200))))
    hello = (
        b'{"machine":"a","run_id":"a-1","round":1,"leaving":[{"number":1,"node":"x",'
        b'"output":"y","given_up":0}]}'
    )
    samples.append((KEY, frames.head(frames.FrameKind.HELLO, 5, 0) + hello[: dice.randrange(80)]))
    with intruder(b.endpoints[0], credentials, samples) as ended:
        wait_until(lambda: ignored(b), what="a report of malformed frames")
        for number in range(50):
            sender.send("o", arrow.encode(message(number, 100)))
            assert number_of(next(coming).data) == number
        assert ended()["alone"] is False
    assert b.process is not None
    assert b.process.poll() is None


def ignored(machine: Machine) -> list[Note]:
    """Return the reports of malformed frames."""
    notes = [message for message in machine.received if isinstance(message, Note)]
    return [note for note in notes if note.message.startswith("ignored malformed frame")]
