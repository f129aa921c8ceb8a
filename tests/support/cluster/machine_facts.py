"""Facts about a machine as the program there answers, for tests without a machine."""

from __future__ import annotations

from typing import Any

from dora_cli.cluster.decisions.preflight import MachineFacts

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
}


def machine_facts(**changed: Any) -> MachineFacts:
    """Facts of a healthy machine, apart from ``changed``; its clock is right."""
    return MachineFacts.from_answer(HEALTHY_MACHINE | changed, sent=1000.0, received=1000.4)
