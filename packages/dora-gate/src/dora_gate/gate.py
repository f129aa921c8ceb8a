"""Choice of the command that a robot obeys, and limit of its speed; pure.

Each cycle has at most one action, of one source:

- in an emergency only the newest command of the input `emergency` is obeyed, while it is alive.
  After an alarm, such as unusable values of that input, no command is obeyed. The other sources are
  obeyed again once the emergency ends; a message older than `hold_after` cannot end it;
- otherwise the source that `control` names is obeyed; with `auto`, the first alive by priority;
- a source is alive for `hold_after` after the capture of its newest command. Older ones are never
  obeyed, whenever they arrive;
- without a source the last action is held, values become zero, or no action is sent.

A change of the source begins with the last action, and no value changes by more than its `max_step`
in a cycle, whatever the reason. Before the first action, and after a pause, both begin with the
state of the robot, if that is known.

Times are nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

EMERGENCY = "emergency"
AUTO = "auto"
NONE = "none"
"""Value of `control` with which no source is obeyed."""


class Rest(StrEnum):
    """Action for the robot while no source is obeyed."""

    HOLD = "hold"
    ZERO = "zero"
    STOP = "stop"
    """No action: the time-out of the robot stops it."""


RESERVED = frozenset((AUTO, NONE, EMERGENCY, *Rest))
"""Words that cannot be names of sources."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    sources: tuple[str, ...]
    """Names by priority, the highest first."""
    hold_after: int
    rest: Rest = Rest.HOLD
    max_step: tuple[float, ...] = ()
    """Largest change of each value in a cycle; one for all of them, or none: unlimited."""
    hand_over: int = 0
    """Nanoseconds of a change from one source to another."""
    needs_state: bool = False
    """Whether to wait for the state of the robot before the first action."""


@dataclass(frozen=True, slots=True)
class SourceCommand:
    """The newest command of a source."""

    values: tuple[float, ...]
    captured: int


@dataclass(frozen=True, slots=True)
class Action:
    """Action for the robot in one cycle."""

    values: tuple[float, ...]
    source: str
    """The source that is obeyed, else `emergency`, `hold` or `zero`."""
    command: bool
    """Whether a source is obeyed."""


class GateRefused(ValueError):
    """A command, a state or a value of `control` cannot be used; the text says why."""


class Gate:
    """Takes commands, and returns the action of each cycle."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.control = AUTO
        self._alarm = False
        self._commands: dict[str, SourceCommand] = {}
        self._size = len(settings.max_step) if len(settings.max_step) > 1 else None
        """Number of values, once it is known."""
        self._state: tuple[float, ...] | None = None
        self._last: tuple[float, ...] | None = None
        """The last action; None before the first and after a pause."""
        self._obeyed: str | None = None
        self._begin = 0
        """Time at which that source was obeyed first."""
        self._from: tuple[float, ...] | None = None
        """Values at the beginning of the change to that source."""

    def select(self, control: object) -> None:
        """Set `control`. Raises GateRefused."""
        known = (*self.settings.sources, AUTO, NONE)
        if control not in known:
            raise GateRefused(f"control is {control!r:.80}; expected one of: {', '.join(known)}")
        self.control = str(control)

    def alarm(self) -> None:
        """Ignore all sources until `end_emergency`."""
        self._alarm = True

    def end_emergency(self, captured: int, now: int) -> None:
        """Obey the sources again. Raises GateRefused."""
        if self.emergency and now - captured > self.settings.hold_after:
            # It may have been sent before the emergency and delayed by a cut of the network.
            raise GateRefused(self._too_old("the end of the emergency", captured, now))
        self._alarm = False
        self._commands.pop(EMERGENCY, None)

    @property
    def emergency(self) -> bool:
        """Whether the sources are ignored, since an alarm or a command of `emergency`."""
        return self._alarm or EMERGENCY in self._commands

    def add(self, source: str, values: Sequence[float], captured: int, now: int) -> None:
        """Store the command of a source.

        Raises GateRefused; unusable values of `emergency` are an alarm.
        """
        try:
            checked = self._checked(values, first=source != EMERGENCY)
        except GateRefused:
            if source == EMERGENCY:
                self.alarm()
            raise
        command = SourceCommand(checked, min(captured, now))
        known = self._commands.get(source)
        if known is not None and command.captured < known.captured:
            raise GateRefused("a command is older than the one before it")
        self._commands[source] = command
        if not self._alive(source, now):
            raise GateRefused(self._too_old("a command", captured, now))

    def _too_old(self, what: str, captured: int, now: int) -> str:
        age, limit = (now - captured) / 1e9, self.settings.hold_after / 1e9
        return f"{what} is {age:.3g} s old when it arrives; the limit is {limit:g} s"

    def see(self, values: Sequence[float]) -> None:
        """Store the state of the robot. Raises GateRefused."""
        self._state = self._checked(values)

    def cycle(self, now: int) -> Action | None:
        """Return the action of this cycle, None for no action."""
        source = self._choose(now)
        start = self._last if self._last is not None else self._state
        if start is None and self.settings.needs_state:
            return None
        if source != self._obeyed:
            self._obeyed, self._begin, self._from = source, now, start
        if source is None:
            return self._rest(start)
        target = self._commands[source].values
        if self._from is not None and now - self._begin < self.settings.hand_over:
            share = (now - self._begin) / self.settings.hand_over
            target = tuple(
                begin + share * (end - begin) for begin, end in zip(self._from, target, strict=True)
            )
        return self._act(source, start, target, command=True)

    def _rest(self, start: tuple[float, ...] | None) -> Action | None:
        rest = self.settings.rest
        if rest is Rest.STOP or self._last is None or start is None:
            # The robot may move during the pause, so the next action begins with its state then.
            self._last = self._last if self._state is None else None
            return None
        target = start if rest is Rest.HOLD else (0.0,) * len(start)
        name = EMERGENCY if self.emergency else str(rest)
        return self._act(name, start, target, command=False)

    def _act(
        self,
        source: str,
        start: tuple[float, ...] | None,
        target: tuple[float, ...],
        *,
        command: bool,
    ) -> Action:
        values = target if start is None else self._limited(start, target)
        self._last = values
        return Action(values, source, command)

    def _limited(self, start: tuple[float, ...], target: tuple[float, ...]) -> tuple[float, ...]:
        steps = self.settings.max_step or (math.inf,)
        if len(steps) == 1:
            steps *= len(start)
        return tuple(
            min(max(end, begin - step), begin + step)
            for begin, end, step in zip(start, target, steps, strict=True)
        )

    def _choose(self, now: int) -> str | None:
        if self.emergency:
            return EMERGENCY if not self._alarm and self._alive(EMERGENCY, now) else None
        wanted = self.settings.sources if self.control == AUTO else (self.control,)
        return next((source for source in wanted if self._alive(source, now)), None)

    @property
    def why_none(self) -> str:
        """Return why no source is obeyed."""
        if self._alarm:
            return "there is an emergency"
        if self.emergency:
            return "there is an emergency, and no new command of it"
        if self.settings.needs_state and self._state is None:
            return "the state of the robot is not known"
        if self.control == NONE:
            return "control is none"
        return f"no new command of {'any source' if self.control == AUTO else self.control}"

    def _alive(self, source: str, now: int) -> bool:
        command = self._commands.get(source)
        return command is not None and now - command.captured <= self.settings.hold_after

    def _checked(self, values: Sequence[float], *, first: bool = True) -> tuple[float, ...]:
        """Return usable values; with `first`, they may decide how many there are."""
        found = tuple(values)
        if not found or not all(map(math.isfinite, found)):
            raise GateRefused("values are not finite numbers" if found else "the message is empty")
        if self._size is None and not first:
            raise GateRefused("the number of values of a command is not known yet")
        self._size = self._size or len(found)
        if len(found) != self._size:
            raise GateRefused(f"there are {len(found)} values; expected {self._size}")
        return found
