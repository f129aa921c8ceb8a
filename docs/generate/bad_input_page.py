"""The page of errors: output of dora for each invalid input of the tests."""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.bad_input import MISTAKES, Mistake
from support.homes import isolated_environment, short_directory
from tables import NOTICE

PAGE = "reference/errors.md"

INTRODUCTION = f"""\
{NOTICE}

# Invalid input and its errors

The output of dora for each of these mistakes. All problems of a file are reported at once, each as `file:line:column`, with the expected value and, if one is
similar, the closest name. The exit code is 1, or 2 if the command line itself is invalid. `dora validate --format json` prints one object for each problem, for
editors.
"""


def render() -> str:
    parts = [INTRODUCTION]
    with short_directory() as home:
        os.environ.update(isolated_environment(home, dict(os.environ)))
        for about, mistakes in groupby(MISTAKES, key=lambda mistake: mistake.about):
            parts.append(f"## {about}\n")
            parts += [_entry(mistake) for mistake in mistakes]
    return "\n".join(parts)


def _entry(mistake: Mistake) -> str:
    with tempfile.TemporaryDirectory(prefix="bad") as name:
        folder = Path(name)
        return mistake.entry(mistake.make(folder), folder)
