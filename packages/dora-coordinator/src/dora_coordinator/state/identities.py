"""Identities of machines: which key each machine id belongs to, and which keys were removed; pure.

The first daemon with a machine id enrols its key. Later ones must prove that they have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

_REMOVED: Final = (
    "its key was removed from the cluster with `dora cluster remove`; to add the machine again, "
    "stop its daemon, delete the daemon's state (~/.local/state/dora/daemon) and start it"
)


class MachineRecord(BaseModel):
    """Stored record of a machine; field names are keys of the JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    machine: str
    digest: str = ""
    """Digest of its public key; empty: the next daemon enrols its own."""
    former: str = ""
    """Digest of the key that the next enrolled one may replace; empty: none."""
    local: bool = False
    """Whether the machine was enrolled from the coordinator's own machine."""
    removed: tuple[str, ...] = ()
    """Digests of earlier keys, which are refused."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Facts that a daemon proved when it connected."""

    digest: str
    """Digest of the public key whose private key it has."""
    local: bool = False
    """Whether the daemon connected from the coordinator's own machine."""


class Identities:
    """The keys of all machine ids."""

    def __init__(self) -> None:
        self._records: dict[str, MachineRecord] = {}
        self._removed: set[str] = set()

    def machines(self) -> set[str]:
        """Return the machines that have a key, also those that are off for long."""
        return set(self._records)

    def load(self, records: Iterable[MachineRecord]) -> None:
        for record in records:
            self._set(record)

    def _set(self, record: MachineRecord) -> MachineRecord:
        self._records[record.machine] = record
        self._removed.update(record.removed)
        return record

    def problem(self, machine: str, proof: Proof) -> str | None:
        """Return why a daemon may not use a machine id, and the remedy."""
        record = self._records.get(machine)
        enrolled = "" if record is None else record.digest
        if proof.digest in self._removed:
            return _REMOVED
        if not enrolled or proof.digest == enrolled:
            return None
        if record is not None and record.local and proof.local:
            return None
        return (
            f'it has another key than machine "{machine}"; if it is this machine with a new '
            "installation or without its state, run `dora cluster up` or `install`, or `dora "
            f"cluster remove FILE {machine}`; otherwise give it another --machine-id"
        )

    def enrol(self, machine: str, proof: Proof) -> MachineRecord | None:
        """Note the key of an admitted machine; return the record if it is new."""
        record = self._records.get(machine) or MachineRecord(machine=machine)
        if proof.digest == record.digest:
            return None
        update = {"digest": proof.digest, "former": "", "local": proof.local}
        return self._set(record.model_copy(update=update))

    def remove(self, machine: str, *, revoke: bool) -> MachineRecord | None:
        """Forget the key of a machine; return the changed record, None if it had none.

        ``revoke``: refuse the key from now on, under every machine id.
        """
        record = self._records.get(machine)
        digest = "" if record is None else record.digest or record.former
        if record is None or not digest:
            return None
        if revoke:
            update = {"digest": "", "former": "", "removed": (*record.removed, digest)}
        elif record.digest:
            update = {"digest": "", "former": digest}
        else:
            return None
        return self._set(record.model_copy(update=update))
