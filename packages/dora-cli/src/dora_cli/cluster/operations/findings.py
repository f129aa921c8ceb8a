"""What `dora cluster doctor` has found: problems with their remedies, and notes."""

from __future__ import annotations

from dataclasses import dataclass, field

from dora_cli import output


@dataclass(slots=True)
class Findings:
    """Collected while the parts of the diagnosis run."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Problems for some commands only; not a failure."""

    def add(self, subject: str, text: str) -> None:
        self.problems.append(f"{subject}: {text}")

    def write(self) -> None:
        for line in self.problems:
            output.write(f"- {line}")
        for note in self.notes:
            output.write(f"note: {note}")
