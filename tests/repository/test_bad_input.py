"""Every invalid input has an error with place and cause, and never a traceback."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest
from support.bad_input import MISTAKES, Mistake

PAGE = (Path(__file__).parents[2] / "docs/reference/errors.md").read_text()


@pytest.mark.integration
@pytest.mark.parametrize(
    "mistake", MISTAKES, ids=lambda mistake: re.sub(r"\W+", "-", f"{mistake.about} {mistake.what}")
)
def test_error_of_invalid_input(mistake: Mistake, tmp_path: Path) -> None:
    done = mistake.make(tmp_path)
    assert done.code == mistake.code, str(done)
    position = 0
    for fragment in mistake.fragments:
        found = done.output.find(fragment, position)
        assert found >= 0, f"{fragment!r} is missing (in this order: {mistake.fragments})\n{done}"
        position = found + len(fragment)
    if "SyntaxError" not in mistake.fragments:
        assert "Traceback" not in done.output, str(done)
    entry = mistake.entry(done, tmp_path)
    assert entry in PAGE, f"run `python docs/generate`; the page lacks\n{entry}"


def test_the_page_of_errors_has_these_mistakes_only() -> None:
    expected = []
    for about, mistakes in groupby(MISTAKES, key=lambda mistake: mistake.about):
        expected += [f"## {about}", *(f"### {mistake.what}" for mistake in mistakes)]
    assert re.findall(r"^##+ .*", re.sub(r"(?ms)^```.*?^```$", "", PAGE), re.MULTILINE) == expected
