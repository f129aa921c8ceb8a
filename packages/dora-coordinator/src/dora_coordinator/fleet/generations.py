"""Generations of the fleet: desired state, its author and its outcome; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dora_config.protocol import fleet as fleets
from dora_coordinator.state.commands import Command, Log, SaveFleet
from dora_coordinator.state.events import StoreLoaded

KEPT_FLEETS: Final = 20
"""Generations to which a rollback is possible."""
KEPT_ENTRIES: Final = 200
"""Generations in the history."""
_IN_PROGRESS: Final = fleets.FleetEntry(generation=0).outcome


@dataclass(eq=False)
class Generations:
    """Stored generations of the fleet. Methods that change them return commands to store them."""

    status: fleets.FleetStatus = field(default_factory=fleets.FleetStatus, init=False)
    _stored: dict[int, fleets.StoredGeneration] = field(default_factory=dict, init=False)

    def load(self, loaded: StoreLoaded) -> None:
        self.status = loaded.fleet or fleets.FleetStatus()
        self._stored = {one.entry.generation: one for one in loaded.generations}

    # --------------------------------------------------------------------- reading

    @property
    def number(self) -> int:
        """Return the present generation; 0: nothing was applied."""
        return self.status.generation

    @property
    def present(self) -> fleets.StoredGeneration | None:
        return self._stored.get(self.number)

    @property
    def fleet(self) -> fleets.Fleet:
        """Return the desired fleet."""
        present = self.present
        return present.fleet if present is not None and present.fleet else fleets.Fleet()

    @property
    def outcome(self) -> str:
        present = self.present
        return "" if present is None else present.entry.outcome

    def get(self, number: int) -> fleets.StoredGeneration | None:
        return self._stored.get(number)

    def history(self) -> list[fleets.StoredGeneration]:
        return [one for _, one in sorted(self._stored.items())]

    def wants(self, fleet: fleets.Fleet) -> bool:
        """Return whether the present generation desires the same fleet."""
        present = {one.name: one.content() for one in self.fleet.dataflows}
        return present == {one.name: one.content() for one in fleet.dataflows}

    def last_good(self) -> int:
        """Return the newest earlier generation that did not fail and is another one; 0: none."""
        for one in reversed(self.history()):
            if one.entry.generation == self.number or one.fleet is None:
                continue
            if "failed" not in one.entry.outcome and not self.wants(one.fleet):
                return one.entry.generation
        return 0

    def record(self, name: str) -> fleets.CopyRecord:
        return self.status.copies.get(name) or fleets.CopyRecord()

    # -------------------------------------------------------------------- changing

    def begin(
        self,
        entry: fleets.FleetEntry,
        fleet: fleets.Fleet,
        kept: Mapping[str, fleets.CopyRecord],
        *,
        force: bool = False,
    ) -> list[Command]:
        """Make a fleet the desired one; ``kept``: what remains known of its dataflows."""
        number = entry.generation
        changed = []
        last = None if self.status.finished else self.present
        if last is not None and last.entry.outcome == _IN_PROGRESS:
            changed.append(_with_outcome(last, f"replaced by generation {number}"))
        changed.append(fleets.StoredGeneration(entry=entry, fleet=fleet))
        if (old := self._stored.get(number - KEPT_FLEETS)) is not None:
            changed.append(old.model_copy(update={"fleet": None}))
        self._stored |= {one.entry.generation: one for one in changed}
        gone = tuple(old for old in self._stored if old <= number - KEPT_ENTRIES)
        for generation in gone:
            del self._stored[generation]
        records = {name: one.model_copy(update={"failed": None}) for name, one in kept.items()}
        self.status = fleets.FleetStatus(
            generation=number, finished=False, force=force, copies=records
        )
        text = f"fleet: generation {number} ({entry.action} by {entry.by or 'unknown'})"
        return [SaveFleet(self.status, tuple(changed), gone), Log("info", text)]

    def save_records(self, changed: Mapping[str, fleets.CopyRecord]) -> list[Command]:
        """Store the changed records of dataflows and copies."""
        copies = {**self.status.copies, **changed}
        if copies == self.status.copies:
            return []
        self.status = self.status.model_copy(update={"copies": copies})
        return [SaveFleet(self.status)]

    def pause(self, reason: str) -> list[Command]:
        self.status = self.status.model_copy(update={"paused": reason})
        return self._save_position(f"paused {reason}")

    def resume(self) -> list[Command]:
        """Continue the roll-out; failed dataflows are tried again."""
        records = self.status.copies.items()
        copies = {name: one.model_copy(update={"failed": None}) for name, one in records}
        self.status = self.status.model_copy(update={"paused": None, "copies": copies})
        return self._save_position(_IN_PROGRESS)

    def _save_position(self, outcome: str) -> list[Command]:
        """Store the status, with the outcome of the present generation unless it was finished."""
        if self.status.finished or self.present is None:
            return [SaveFleet(self.status)]
        return self.end(outcome)

    def finish(self, outcome: str) -> list[Command]:
        self.status = self.status.model_copy(update={"finished": True})
        text = f"fleet: generation {self.number}: {outcome}"
        return [*self.end(outcome), Log("info", text)]

    def end(self, outcome: str) -> list[Command]:
        """Store the outcome of the present generation."""
        present = self.present
        assert present is not None
        self._stored[self.number] = changed = _with_outcome(present, outcome)
        return [SaveFleet(self.status, (changed,))]


def _with_outcome(stored: fleets.StoredGeneration, outcome: str) -> fleets.StoredGeneration:
    entry = stored.entry.model_copy(update={"outcome": outcome})
    return stored.model_copy(update={"entry": entry})
