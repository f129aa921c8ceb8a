"""Choice of the machine that uploads files of code which the coordinator lacks; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_config.file_store import FileRefused
from dora_config.protocol.envelope import clean_text


class CodeSearch:
    """Distributes missing files over the machines that have them, until all are uploaded."""

    def __init__(self, digests: Iterable[str]) -> None:
        self._holders: dict[str, list[str]] = {digest: [] for digest in digests}
        """Machines that may still upload each missing file."""
        self._shares: dict[str, list[str]] = {}
        self._problems: dict[str, str] = {}

    def found(self, machine: str, digests: Iterable[str]) -> None:
        for digest in digests:
            if digest in self._holders:
                self._holders[digest].append(machine)

    def shares(self) -> dict[str, list[str]]:
        """Return the files that each machine is to upload now; empty once all are uploaded.

        Raises FileRefused: 404 if no machine has one of them, 502 if none could upload it.
        """
        self._shares = {}
        for digest, holders in self._holders.items():
            if not holders:
                raise self._refusal()
            machine = min(holders, key=lambda name: len(self._shares.get(name, ())))
            self._shares.setdefault(machine, []).append(digest)
        return self._shares

    def uploaded(self, machine: str, digests: Iterable[str], problem: str | None) -> None:
        """Note the uploads of a machine; ``problem``: why the rest of its share is missing."""
        done = set(digests)
        for digest in self._shares[machine]:
            if digest in done:
                del self._holders[digest]
            else:
                self._holders[digest].remove(machine)
                self._problems[machine] = problem or "it was removed there"

    def _refusal(self) -> FileRefused:
        if not self._problems:
            return FileRefused(404, "the code is neither here nor on a connected machine")
        reasons = "; ".join(f"{name}: {clean_text(text)}" for name, text in self._problems.items())
        return FileRefused(502, f"the code could not be fetched from a machine: {reasons}")
