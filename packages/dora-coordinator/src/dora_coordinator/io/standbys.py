"""Standbys: copies of the store for them, and whether one of them has taken over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.to_thread

from dora_config.access import Endpoint, split_address
from dora_config.protocol import daemon as messages
from dora_config.protocol.claims import Claim
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.connections import DaemonConnection
from dora_coordinator.io.store import Store, StoreError
from dora_coordinator.io.succession import CopyError, SuccessionFile, ask, make_copy
from dora_coordinator.io.token_file import TokenFile
from dora_coordinator.state.succession import Succession

RETRY = 5.0
"""Seconds between attempts to send a copy."""
COPY_PAUSE = 0.2
"""Seconds in which changes are collected for one copy."""
COPY_SHARE = 4.0
"""Shortest pause after a copy, as a multiple of the time that making it took."""
ASK_EVERY = 5.0
"""Seconds between requests to the standbys whether one has taken over."""

logger = logging.getLogger("dora.coordinator")


class Standbys:
    """Sender of copies to the standbys. Its two loops run beside the service, until cancelled."""

    def __init__(
        self,
        succession: Succession,
        file: SuccessionFile,
        store: Store,
        authority: Authority,
        tokens: TokenFile | None,
        connections: Mapping[str, DaemonConnection],
        on_replaced: Callable[[], None],
    ) -> None:
        """``connections``: of the daemons; ``on_replaced``: called when another one leads."""
        self._succession = succession
        self._file = file
        self._store = store
        self._authority = authority
        self._tokens = tokens
        self._connections = connections
        self._on_replaced = on_replaced
        self._copy_wanted = anyio.Event()

    def save(self) -> None:
        """Store the record of the succession, and send copies with it."""
        self._file.write(self._succession.record)
        self.changed()

    def changed(self) -> None:
        """Schedule copies."""
        self._copy_wanted.set()

    def consider(self, claim: Claim, source: str) -> None:
        """Stand aside for a coordinator with a higher rank, if the authority has signed its claim.

        ``source``: what has sent the claim, for the log.
        """
        leading = self._succession.leading
        if claim.rank <= leading.rank:
            return
        if claim.cluster != leading.cluster or not self._authority.has_signed(
            claim.text, claim.proof
        ):
            logger.error(
                "ignored a claim of %s for %s: it is not signed by the authority of this cluster; "
                "examine that machine",
                source,
                claim,
            )
            return
        logger.warning("%s has sent the claim of %s", source, claim)
        self._succession.replace(claim)
        self._file.write(self._succession.record)
        self._on_replaced()

    async def watch(self) -> None:
        """Ask the standbys whether one has taken over."""
        while self._succession.refusal is None:
            async with anyio.create_task_group() as tasks:
                for one in self._succession.record.standbys:
                    tasks.start_soon(self._ask, one.address)
            await anyio.sleep(ASK_EVERY)

    async def _ask(self, address: str) -> None:
        host, port = split_address(address)
        token = None if self._tokens is None else str(self._tokens.current)
        found = await anyio.to_thread.run_sync(
            ask, Endpoint(host, int(port), token), abandon_on_cancel=True
        )
        if found is not None:
            self.consider(found, f"the coordinator at {address}")

    async def send_copies(self) -> None:
        """Send each change of the store to the standbys."""
        problem = ""
        while True:
            self._copy_wanted = anyio.Event()
            began = anyio.current_time()
            due = self._succession.due(self._connections.keys(), anyio.current_time())
            if due:
                try:
                    await self._send_copy(due)
                    problem = ""
                except (StoreError, CopyError) as error:
                    if str(error) != problem:
                        logger.error("the standbys get no copy: %s", error)
                    problem = str(error)
            pause = max(COPY_PAUSE, COPY_SHARE * (anyio.current_time() - began))
            with anyio.move_on_after(RETRY):
                await self._copy_wanted.wait()
            await anyio.sleep(pause)

    async def copy(self) -> messages.CoordinatorCopy:
        """Return an encrypted copy of the present state; raises StoreError and CopyError."""
        if self._tokens is None:
            raise CopyError(
                "without a token (--no-auth) nothing could encrypt it; start the coordinator with "
                "a token, or remove coordinator.standby from the cluster file"
            )
        return await anyio.to_thread.run_sync(
            make_copy,
            self._store,
            self._authority,
            self._tokens.text,
            self._tokens.current,
            self._succession.record.claim,
        )

    async def _send_copy(self, machines: Sequence[str]) -> None:
        copy = await self.copy()
        text = messages.TO_DAEMON.encode(copy)
        for machine in machines:
            if (connection := self._connections.get(machine)) is not None:
                self._succession.sent(machine, copy.number, anyio.current_time())
                connection.send(text)
