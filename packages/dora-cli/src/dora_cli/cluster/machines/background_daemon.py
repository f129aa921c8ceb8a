"""The daemon that `up` starts on a machine: a process of the user's, with what it is given."""

from __future__ import annotations

import hashlib
import json

from dora_cli.cluster.decisions.daemon_argv import daemon_arguments
from dora_cli.cluster.decisions.preflight import Facts
from dora_cli.cluster.machines.parallel import OnMachine

STOP_TIMEOUT = 20.0


def hand_over(on: OnMachine) -> None:
    """End it; its dataflows go on and wait for the next one."""
    on.ask("stop", name=on.daemon, hand_over=True, within=STOP_TIMEOUT)


def begin(on: OnMachine, dora: str, *, token: str | None = None) -> None:
    """Start it; ``token``: None leaves it the one that it has."""
    folder = on.ask("prepare", name=on.daemon)["folder"]
    if token is not None:
        on.link.write(f"{folder}/dora-token", f"{token}\n".encode(), mode=0o600)
    on.link.write(f"{folder}/environment", _environment(on), mode=0o600)
    words = [dora, *daemon_arguments(on.cluster, on.machine)]
    on.ask("start", name=on.daemon, words=words)


def differences(on: OnMachine, facts: Facts) -> str:
    """What of its line in the cluster file a running daemon was not started with; may be empty."""
    if facts.daemon is None or not facts.daemon.words:
        return ""
    found = []
    if facts.daemon.arguments != tuple(daemon_arguments(on.cluster, on.machine)):
        found.append("labels or ports")
    if not facts.service and not facts.user_service:
        given = facts.environment or hashlib.sha256(b"{}").hexdigest()
        if given != hashlib.sha256(_environment(on)).hexdigest():
            found.append("env")
    return " and ".join(found)


def _environment(on: OnMachine) -> bytes:
    return json.dumps(on.machine.env, sort_keys=True).encode()
