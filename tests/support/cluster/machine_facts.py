"""Facts about a machine as the program there answers, for tests without a machine."""

from __future__ import annotations

from typing import Any

from dora_cluster.decisions.preflight import MachineFacts

MOUNT: dict[str, Any] = {
    "path": "/home/x",
    "mount": "/",
    "read_only": False,
    "noexec": False,
    "writable": True,
}
HEALTHY_MACHINE: dict[str, Any] = {
    "python": "3.11.2",
    "machine": "x86_64",
    "system": "Linux",
    "user": "ubuntu",
    "uid": 1000,
    "home": "/home/ubuntu",
    "state": "/home/ubuntu/.local/state/dora",
    "time": 1000.2,
    "free": 10 << 30,
    "memory": 4 << 30,
    "memory_files": True,
    "systemd": True,
    "address": "10.0.0.2",
    "daemon": None,
    "environment": None,
    "service": False,
    "user_service": False,
    "dora": None,
    "process_state": "S",
    "missing_program": "",
    "missing_unit_program": "",
    "token": None,
    "last_line": "",
    "state_mount": MOUNT,
    "program_mount": MOUNT,
}


def machine_facts(**changed: Any) -> MachineFacts:
    """Facts of a healthy machine, apart from ``changed``; its clock is right."""
    return MachineFacts.from_answer(HEALTHY_MACHINE | changed, sent=1000.0, received=1000.4)
