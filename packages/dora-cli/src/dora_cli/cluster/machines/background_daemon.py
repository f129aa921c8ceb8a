"""The daemon that `up` runs in the background of a machine."""

from __future__ import annotations

import hashlib
import json

from dora_cli.cluster.decisions.daemon_argv import daemon_arguments
from dora_cli.cluster.decisions.preflight import MachineFacts
from dora_cli.cluster.machines.remote_machine import RemoteMachine

HAND_OVER_TIMEOUT = 20.0
STOP_TIMEOUT = 60.0


def hand_over(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running and wait for the next daemon."""
    remote.call("daemon.stop", name=remote.daemon, hand_over=True, within=HAND_OVER_TIMEOUT)


def stop_and_clean(remote: RemoteMachine) -> None:
    """End the daemon with its dataflows, and remove its state."""
    _stop(remote, hand_over=False)
    remote.call("daemon.clean", name=remote.daemon, keep_state=False)


def stop_for_service(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running, and its state stays for that of the service."""
    _stop(remote, hand_over=True)
    remote.call("daemon.clean", name=remote.daemon, keep_state=True)


def _stop(remote: RemoteMachine, *, hand_over: bool) -> None:
    remote.call(
        "daemon.stop",
        name=remote.daemon,
        hand_over=hand_over,
        within=STOP_TIMEOUT,
        timeout=STOP_TIMEOUT + 30.0,  # so that the program there reports a daemon that hangs
    )


def start_daemon(remote: RemoteMachine, dora: str, *, token: str | None = None) -> None:
    """Start the daemon; ``token`` None: with the token that is on the machine."""
    folder = remote.call("daemon.prepare", name=remote.daemon)["folder"]
    if token is not None:
        remote.connection.write(f"{folder}/dora-token", f"{token}\n".encode(), mode=0o600)
    remote.connection.write(f"{folder}/environment", _environment(remote), mode=0o600)
    words = [dora, *daemon_arguments(remote.cluster, remote.machine)]
    remote.call("daemon.start", name=remote.daemon, words=words)


def changed_settings(remote: RemoteMachine, facts: MachineFacts) -> str:
    """Return which settings of the file differ from those of the running daemon; may be empty."""
    if facts.daemon is None or not facts.daemon.words:
        return ""
    found = []
    if facts.daemon.arguments != tuple(daemon_arguments(remote.cluster, remote.machine)):
        found.append("labels or ports")
    if not facts.service and not facts.user_service:
        given = facts.environment or hashlib.sha256(b"{}").hexdigest()
        if given != hashlib.sha256(_environment(remote)).hexdigest():
            found.append("env")
    return " and ".join(found)


def _environment(remote: RemoteMachine) -> bytes:
    return json.dumps(remote.machine.env, sort_keys=True).encode()
