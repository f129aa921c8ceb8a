"""Replaces a node's program in a running dataflow: the new process starts before the old stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_daemon.runner.errors import RequestRefused

if TYPE_CHECKING:
    from dora_config.protocol.runner import ReplaceNode
    from dora_daemon.runner.service import Runner


class Replacing:
    """Holds the new process until the old one has gone."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def replace(self, request: ReplaceNode) -> None:
        """Raises RequestRefused."""
        raise RequestRefused("not yet")
