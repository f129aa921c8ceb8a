"""Choice of the step of a policy's newest chunk that is due on the robot; pure.

A chunk is a list of actions. Its first one is for the moment of the observation, each next one for
`dt` later. All times are those of one clock, the monotonic one of the robot's machine: a chunk
contains the time of its observation as the robot's machine sent it. So neither the clock of the
policy's machine nor a change of the time of day has an influence.

- a step is due for `dt`: those that passed while the policy computed are skipped, and those of a
  chunk that comes back after a cut;
- the chunk with the newest observation is used, from its arrival on. One with an older observation
  is refused, whenever it arrives;
- no step is executed later than `hold_after` after the arrival of the chunk, although steps may be
  left: without a connection to the policy the robot does not move on blindly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lerobot_robot_dora.messages import MessageUnusable


@dataclass(frozen=True, slots=True)
class Chunk:
    names: tuple[str, ...]
    steps: tuple[tuple[float, ...], ...]
    dt: int
    """Nanoseconds from one step to the next."""
    observed: int
    policy: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        """Raises MessageUnusable."""
        if self.dt <= 0:
            raise MessageUnusable(
                f"`dt` is {self.dt / 1e9:g} s; expected the seconds between two steps"
            )
        if not self.steps:
            raise MessageUnusable("the chunk has no steps")
        for step in self.steps:
            if len(step) != len(self.names):
                raise MessageUnusable(
                    f"a step has {len(step)} numbers, but there are {len(self.names)} names"
                )
            if not all(map(math.isfinite, step)):
                raise MessageUnusable("a step has numbers that are not finite")

    @property
    def end(self) -> int:
        """Time at which the last step expires."""
        return self.observed + len(self.steps) * self.dt


@dataclass(frozen=True, slots=True)
class Step:
    """The step that is due."""

    chunk: Chunk
    index: int

    @property
    def values(self) -> tuple[float, ...]:
        return self.chunk.steps[self.index]


class Steps:
    """Takes chunks, and returns the step that is due."""

    def __init__(self, hold_after: int) -> None:
        self._hold_after = hold_after
        self._chunk: Chunk | None = None
        self._arrived = 0

    def add(self, chunk: Chunk, now: int) -> None:
        """Use a chunk from now on. Raises MessageUnusable."""
        if chunk.observed > now:
            raise MessageUnusable(
                f"the observation is {(chunk.observed - now) / 1e9:.3g} s in the future; run this"
                " node on the machine of the robot"
            )
        if chunk.end <= now:
            raise MessageUnusable(
                f"all {len(chunk.steps)} steps are past: the observation is"
                f" {(now - chunk.observed) / 1e9:.3g} s old, and the steps last"
                f" {len(chunk.steps) * chunk.dt / 1e9:.3g} s"
            )
        if self._chunk is not None and chunk.observed < self._chunk.observed:
            raise MessageUnusable("the observation is older than the previous chunk's")
        self._chunk, self._arrived = chunk, now

    def due(self, now: int) -> Step | None:
        """Return the step that is due, None to hold."""
        chunk = self._chunk
        if chunk is None or not chunk.observed <= now < chunk.end:
            return None
        if now - self._arrived > self._hold_after:
            return None
        return Step(chunk, (now - chunk.observed) // chunk.dt)

    def why_none(self, now: int) -> str:
        """Return why no step is due."""
        if self._chunk is None:
            return "no chunk has come"
        if now >= self._chunk.end:
            last = len(self._chunk.steps) * self._chunk.dt / 1e9
            return f"the last chunk has ended; its {len(self._chunk.steps)} steps last {last:.3g} s"
        return f"no new chunk for {self._hold_after / 1e9:g} s"
