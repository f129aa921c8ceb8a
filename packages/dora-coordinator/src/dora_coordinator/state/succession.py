"""Choice of the leading coordinator, and copies of its state on other machines; pure.

Each coordinator has a *claim* with an *epoch*; one that takes over has a higher one than its
predecessor. Daemons obey the highest epoch that they have seen, and of equal ones that of the
machine that sorts last. Claims are signed by the cluster's authority and verified before they
arrive here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from dora_config.protocol.claims import Claim
from dora_config.protocol.control import SetStandbys, Standby, StandbyReport
from dora_config.protocol.daemon import Coordinators, CopyKept

CONFIRMATION: Final = 30.0
"""Seconds after which an unconfirmed copy is sent again."""
FAILED_PAUSE: Final = 10.0
"""Seconds until another copy is sent to a machine that could not keep one."""


class SuccessionRecord(BaseModel):
    """Stored claims of a coordinator, and its standbys; field names are keys of the JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    claim: Claim = Claim()
    """Claim of this coordinator, with its epoch, machine and address."""
    standbys: tuple[Standby, ...] = ()
    successor: Claim | None = None
    """Claim of the coordinator that has replaced this one."""

    @property
    def epoch(self) -> int:
        return self.claim.epoch

    @property
    def leading(self) -> Claim:
        """Claim of this coordinator, or of the one that has replaced it."""
        return self.successor or self.claim


@dataclass(slots=True)
class _Copy:
    """State of the copy on one machine; times are readings of the coordinator's clock."""

    sent: int = -1
    sent_at: float = float("-inf")
    kept: int | None = None
    kept_at: float = 0.0
    problem: str | None = None

    @property
    def open(self) -> bool:
        """Whether a copy was sent and is not answered yet."""
        return self.sent != -1


class Succession:
    """Decisions of one coordinator. `record` is to be stored after each change."""

    def __init__(
        self,
        record: SuccessionRecord | None = None,
        sign: Callable[[Claim], Claim] = lambda claim: claim,
    ) -> None:
        """``sign``: with the key of the authority."""
        self.record = record or SuccessionRecord()
        self._sign = sign
        self.number = 0
        """Number of changes in the store."""
        self._copies: dict[str, _Copy] = {}

    @property
    def coordinators(self) -> Coordinators:
        """Message to daemons with the claim and the standbys."""
        standbys = tuple(one.address for one in self.record.standbys)
        return Coordinators(claim=self.record.claim, standbys=standbys)

    @property
    def leading(self) -> Claim:
        """Claim of this coordinator, or of the one that has replaced it."""
        return self.record.leading

    @property
    def refusal(self) -> str | None:
        """Why this coordinator refuses changes; None while it leads."""
        successor = self.record.successor
        if successor is None:
            return None
        return (
            f"this coordinator was replaced by the one at {successor.address} (epoch "
            f"{successor.epoch}) and changes nothing; use that one with --coordinator-addr"
        )

    def set_standbys(self, request: SetStandbys) -> bool:
        """Set the standbys and the address of the claim; return whether they have changed."""
        before, claim = self.record, self.record.claim
        if claim.address != request.address:
            claim = self._sign(claim.model_copy(update={"address": request.address}))
        update = {"claim": claim, "standbys": request.standbys}
        self.record = before.model_copy(update=update)
        machines = {one.machine for one in request.standbys}
        self._copies = {name: copy for name, copy in self._copies.items() if name in machines}
        return self.record != before

    def replace(self, by: Claim) -> bool:
        """Note the verified claim of another coordinator; return whether it replaces this one."""
        if by.rank <= self.leading.rank:
            return False
        self.record = self.record.model_copy(update={"successor": by})
        return True

    # ------------------------------------------------------------------------ copies

    def due(self, connected: Collection[str], now: float) -> list[str]:
        """Return the machines to which the present state is to be sent now."""
        if self.record.successor is not None:
            return []
        machines = [one.machine for one in self.record.standbys if one.machine in connected]
        return [name for name in machines if self._is_due(self._copy(name), now)]

    def _is_due(self, copy: _Copy, now: float) -> bool:
        if copy.open:
            return now >= copy.sent_at + CONFIRMATION
        if copy.problem is not None and now < copy.sent_at + FAILED_PAUSE:
            return False
        return copy.kept != self.number

    def _copy(self, machine: str) -> _Copy:
        return self._copies.setdefault(machine, _Copy())

    def sent(self, machine: str, number: int, now: float) -> None:
        copy = self._copy(machine)
        copy.sent, copy.sent_at = number, now

    def answered(self, machine: str, answer: CopyKept, now: float) -> None:
        """Note the confirmation of a machine, or why it failed."""
        copy = self._copies.get(machine)
        if copy is None or (answer.epoch, answer.number) != (self.record.epoch, copy.sent):
            return  # of an earlier connection
        copy.sent, copy.problem = -1, answer.problem
        if answer.problem is None:
            copy.kept, copy.kept_at = answer.number, now

    def disconnected(self, machine: str) -> None:
        """Forget what was sent over a lost connection."""
        if machine in self._copies:
            self._copies[machine].sent = -1

    def send_again(self) -> None:
        """Replace all copies: they are encrypted with a former token."""
        for copy in self._copies.values():
            copy.sent, copy.kept = -1, None

    def reports(self, now: float) -> tuple[StandbyReport, ...]:
        found = []
        for one in self.record.standbys:
            copy = self._copies.get(one.machine, _Copy())
            found.append(
                StandbyReport(
                    machine=one.machine,
                    address=one.address,
                    number=copy.kept,
                    age=None if copy.kept is None else max(0.0, now - copy.kept_at),
                    current=copy.kept == self.number,
                    problem=copy.problem,
                )
            )
        return tuple(found)
