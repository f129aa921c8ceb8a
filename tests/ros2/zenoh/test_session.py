"""The configuration of sessions: environment, session file, ports, TLS."""

from __future__ import annotations

import json
import os
import queue
import socket
from pathlib import Path
from typing import Any

import pytest
import zenoh
from daemon.link.certificates import Authority
from ros2.routers import Router, free_port

from dora_ros2.connection import RosNode
from dora_ros2.errors import InvalidName, SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh import ROUTER
from dora_ros2.zenoh.session import ZenohSession, configuration

STRING = Types().message("std_msgs/String")


def setting(environ: dict[str, str], path: str, **arguments: Any) -> Any:
    return json.loads(configuration(environ, **arguments).get_json(path))


def test_the_defaults_are_those_of_rmw_zenoh_and_closed() -> None:
    assert setting({}, "mode") == "peer"
    assert setting({}, "connect/endpoints") == [ROUTER] == ["tcp/localhost:7447"]
    assert setting({}, "listen/endpoints")["peer"] == ["tcp/localhost:0"]
    assert setting({}, "scouting/multicast/enabled") is False


def test_other_machines_are_reached_as_a_client() -> None:
    assert setting({}, "mode", router="tcp/robot:7447") == "client"
    assert setting({}, "mode", router="tls/[::1]:7447") == "peer"
    override = {"ZENOH_CONFIG_OVERRIDE": 'mode="peer"'}
    assert setting(override, "mode", router="tcp/robot:7447") == "peer"
    override = {"ZENOH_CONFIG_OVERRIDE": 'connect/endpoints=["tls/robot:7447"]'}
    assert setting(override, "mode") == "client"
    with pytest.raises(SessionError, match=r"^no Zenoh router answers at tcp/127\.0\.0\.1:1$"):
        ZenohSession(
            router="tcp/127.0.0.1:1",
            wait_seconds=0.1,
            environ={"ZENOH_CONFIG_OVERRIDE": 'mode="client"'},
        )


def test_the_last_attempt_to_connect_ends_with_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def refuse(config: zenoh.Config) -> zenoh.Session:
        limits.append(json.loads(config.get_json("connect/timeout_ms")))
        raise zenoh.ZError("cannot connect")

    monkeypatch.setattr(zenoh, "open", refuse)
    with pytest.raises(SessionError, match="no Zenoh router answers at tcp/robot:7447"):
        ZenohSession(router="tcp/robot:7447", wait_seconds=0.1, environ={})
    assert all(1 <= limit <= 100 for limit in limits)


def test_a_session_file(tmp_path: Path) -> None:
    file = tmp_path / "session.json5"
    file.write_text('{ /* short */ mode: "client", connect: { endpoints: ["tls/robot:7447"] } }')
    environ = {"ZENOH_SESSION_CONFIG_URI": str(file)}
    assert setting(environ, "mode") == "client"
    assert setting(environ, "connect/endpoints") == ["tls/robot:7447"]
    # What the file leaves out is closed too.
    assert setting(environ, "listen/endpoints")["peer"] == ["tcp/localhost:0"]
    assert setting(environ, "scouting/multicast/enabled") is False
    file.write_text(
        '{ listen: { endpoints: ["tcp/[::]:0"] }, scouting: {multicast: {enabled: true}} }'
    )
    environ = {"ZENOH_SESSION_CONFIG_URI": f"file://{file}"}
    assert setting(environ, "listen/endpoints") == ["tcp/[::]:0"]
    assert setting(environ, "scouting/multicast/enabled") is True
    assert setting({}, "mode", config=str(file)) == "peer"


def test_the_override_is_applied_after_the_file_and_an_option_last(tmp_path: Path) -> None:
    file = tmp_path / "session.json5"
    file.write_text("{}")
    override = 'mode="client"; connect/endpoints=["tcp/robot:7447"];'
    environ = {"ZENOH_CONFIG_OVERRIDE": override, "ZENOH_SESSION_CONFIG_URI": str(file)}
    assert setting(environ, "mode") == "client"
    assert setting(environ, "connect/endpoints") == ["tcp/robot:7447"]
    assert setting(environ, "connect/endpoints", router="tcp/x:1") == ["tcp/x:1"]
    with pytest.raises(SessionError, match="write it as tcp/HOST:7447"):
        setting(environ, "connect/endpoints", router="10.0.0.1")


@pytest.mark.parametrize(
    "override", ["mode", "modes=1", 'mode="pear"', "connect/endpoints=[", "=1"]
)
def test_a_wrong_override_is_named(override: str) -> None:
    with pytest.raises(SessionError) as raised:
        configuration({"ZENOH_CONFIG_OVERRIDE": f'mode="peer";{override}'})
    assert str(raised.value).startswith(f'ZENOH_CONFIG_OVERRIDE: "{override}": ')
    assert str(raised.value).endswith("; expected path=value;path=value")
    assert ".cargo" not in str(raised.value)


def test_a_missing_session_file(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"cannot read the Zenoh session file .*No such file"):
        configuration({"ZENOH_SESSION_CONFIG_URI": str(tmp_path / "none.json5")})


def test_the_domain() -> None:
    with pytest.raises(InvalidName, match='"x" is not a valid ROS domain'):
        ZenohSession(environ={"ROS_DOMAIN_ID": "x"})


def test_a_session_listens_on_loopback_only(router: Router) -> None:
    before = _listening()
    with router.open() as session:
        assert session.waiting is None
        new = _listening() - before
        assert new
        assert {address for address, _ in new} <= {"127.0.0.1", "::1"}
    before = _listening()
    with router.open(override='mode="client"') as session:
        assert session.waiting is None
        assert _listening() <= before


def tls_config(file: Path, certificates: Path, **settings: Any) -> Path:
    """Write a session file with certificates, which both sides must show."""
    tls = {"enable_mtls": True, "root_ca_certificate": str(certificates / "ca.pem")}
    for side in ("connect", "listen"):
        tls[f"{side}_certificate"] = str(certificates / "cert.pem")
        tls[f"{side}_private_key"] = str(certificates / "key.pem")
    settings["transport"] = {"link": {"tls": tls}}
    file.write_text(json.dumps({"scouting": {"multicast": {"enabled": False}}, **settings}))
    return file


def test_tls_of_the_session_file_works_and_others_are_refused(tmp_path: Path) -> None:
    authority, other = Authority(), Authority("another authority")
    good = authority.sign(tmp_path / "good", "localhost")
    bad = other.sign(tmp_path / "bad", "localhost")
    stranger = other.sign(tmp_path / "stranger", "localhost")
    (stranger / "ca.pem").write_bytes((good / "ca.pem").read_bytes())
    endpoint = f"tls/localhost:{free_port()}"
    router = tls_config(
        tmp_path / "router.json5", good, mode="router", listen={"endpoints": [endpoint]}
    )
    connect = {"connect": {"endpoints": [endpoint]}}
    peer = tls_config(tmp_path / "peer.json5", good, **connect)
    client = tls_config(tmp_path / "client.json5", good, mode="client", **connect)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    running = zenoh.open(zenoh.Config.from_file(router))
    try:
        with (
            ZenohSession(environ={"ZENOH_SESSION_CONFIG_URI": str(peer)}) as one,
            ZenohSession(environ={"ZENOH_SESSION_CONFIG_URI": f"file://{client}"}) as two,
        ):
            assert (one.waiting, two.waiting) == (None, None)
            ends = [
                (RosNode(one, "one"), RosNode(two, "two")),
                (RosNode(two, "a"), RosNode(one, "b")),
            ]
            for number, (sender, receiver) in enumerate(ends):
                name = f"/topic_{number}"
                receiver.subscription(name, STRING, lambda payload, _: received.put(payload))
                publisher = sender.publisher(name, STRING)
                assert sender.connection.wait_for(
                    lambda graph, name=name: graph.topics()[name].uses,  # type: ignore[misc]
                    20,
                )
                publisher.publish(b"%d" % number)
                assert received.get(timeout=20) == b"%d" % number
        refused = tls_config(tmp_path / "refused.json5", bad, mode="client", **connect)
        with pytest.raises(SessionError, match="its certificate is refused: unable to get local"):
            ZenohSession(config=refused, environ={}, wait_seconds=0.1)
        refused = tls_config(tmp_path / "refused.json5", stranger, **connect)
        with ZenohSession(config=refused, environ={}) as session:
            assert session.waiting is not None
            expected = f"waits for a Zenoh router at {endpoint}: TLS fails: TLSV1_ALERT_UNKNOWN_CA"
            assert session.waiting == expected
        (stranger / "key.pem").unlink()
        with pytest.raises(SessionError, match="cannot read the connect_private_key "):
            ZenohSession(config=refused, environ={}, wait_seconds=0.1, client=True)
    finally:
        running.close()  # type: ignore[no-untyped-call]


def _listening() -> set[tuple[str, int]]:
    """Return the TCP addresses on which this process listens."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as held:
                if held.type == socket.SOCK_STREAM and held.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                ):
                    found.add(held.getsockname()[:2])
        except OSError:
            continue
    return found
