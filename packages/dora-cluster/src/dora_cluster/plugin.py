"""The group `dora cluster`; imports none of its commands."""

from __future__ import annotations

from functools import partial

from dora_cli.registry import Group, functions

_MACHINES = partial(functions, "dora_cluster.commands.machines")
_FLEET = partial(functions, "dora_cluster.commands.fleet")
_STATE = partial(functions, "dora_cluster.commands.state")

CLUSTER = Group(
    "Manage a cluster of machines.",
    {
        **_MACHINES("up"),
        **_STATE("status"),
        **_MACHINES("down", "remove", "install", "uninstall"),
        **_MACHINES("exec", "logs"),
        **_FLEET("diff", "apply", "history", "rollback", "pause", "resume"),
        **_MACHINES("upgrade", "downgrade", "promote"),
        **_STATE("rotate-token", "machine-token", "ca"),
    },
    heading="Through a coordinator",
)
