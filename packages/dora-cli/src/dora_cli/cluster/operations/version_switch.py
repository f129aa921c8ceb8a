"""Switches a coordinator or daemon to another version, all or nothing; its dataflows keep running.

Whether it is a service or runs in the background: the new version is prepared and started, must
answer and pass a check; otherwise the old version is started again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from dora_cli.cluster.decisions.daemon_argv import without_name
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.operations.steps import poll, step, write_line
from dora_config.errors import DoraError

FAULTS = (DoraError, OSError)


class VersionSwitch(ABC):
    """The switch of one process; the subclasses know how it is started and restored."""

    WHAT: ClassVar[str]
    """coordinator, daemon"""
    ANSWER: ClassVar[str]
    """What the new version did not do, if it fails: ``answer``, ``connect``."""
    REMEDY: ClassVar[str]
    """What to do if the old version could not be started either."""

    def __init__(self, place: str, old: str) -> None:
        """``place``: the machine's name in messages; ``old``: empty if nothing answers."""
        self.place = place
        self.old = old
        self.new = ""
        self.replacing = False
        """Whether the old version may have been ended."""

    @abstractmethod
    def prepare(self) -> bool:
        """Prepare what the new version needs; return False if it runs already."""

    @abstractmethod
    def undo(self) -> None:
        """Undo `prepare`, which may have failed."""

    @abstractmethod
    def replace(self) -> None:
        """End the old version and start the new one."""

    @abstractmethod
    def release(self) -> str:
        """Return the version that answers; empty if none does; raises CoordinatorBusy."""

    @abstractmethod
    def last_lines(self) -> Sequence[str]:
        """Return the end of the new version's output."""

    @abstractmethod
    def check(self) -> None:
        """Raise NotReady unless everything is as it was before."""

    @abstractmethod
    def restore(self) -> None:
        """Undo `replace`, which may have failed anywhere, and `prepare`."""

    def run(self) -> bool:
        """Switch; return False if the new version runs already.

        Raises NotReady with the old version running.
        """
        try:
            if not self.prepare():
                return False
            self.replacing = True
            self.replace()
            self.wait()
            self.check()
        except BaseException as problem:
            self._return(problem)
            if not self.replacing or not isinstance(problem, FAULTS):
                raise
            text = f"{problem}\n  (the {self.WHAT} runs {self._before} again)"
            raise NotReady(text) from problem
        return True

    def wait(self) -> None:
        """Wait until the new version answers; raises NotReady with its last lines."""
        try:
            poll(lambda: self.release() == self.new, f"dora {self.new} did not {self.ANSWER}")
        except DoraError as problem:
            lines = "\n".join(f"    {line}" for line in self.last_lines())
            raise NotReady(f"{problem}; its last lines:\n{lines}") from problem

    @property
    def _before(self) -> str:
        return self.old or "the version before"

    def _return(self, problem: BaseException) -> None:
        """Return to the old version; raises NotReady with ``problem`` if that fails too."""
        if not self.replacing:
            with suppress(*FAULTS):  # the machine may be unreachable
                self.undo()
            return
        if isinstance(problem, FAULTS):
            text = str(problem)
        else:  # Ctrl-C
            text = "interrupted"
            write_line(
                f"  Interrupted: returning to {self._before}; a second Ctrl-C leaves it as it is"
            )
        try:
            with step(f"Return to {self._before}"):
                self.restore()
                if self.old:
                    failure = f"dora {self.old} did not {self.ANSWER} either"
                    poll(lambda: self.release() == self.old, failure)
        except FAULTS as second:
            reason = without_name(str(second), self.place)
            raise NotReady(
                f"{text}\n  and it could not be returned: {reason}\n  {self.REMEDY}"
            ) from second
