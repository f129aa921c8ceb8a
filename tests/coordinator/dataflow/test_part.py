from __future__ import annotations

import pytest

from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.state.records import PartState


@pytest.mark.parametrize(
    ("count", "end"), [(1, 'daemon "d0"'), (8, 'daemon "d7"'), (9, "and 1 more")]
)
def test_sentences_name_eight_daemons_and_count_the_others(count: int, end: str) -> None:
    parts = [Part("flow", f"d{i}", ("n",), PartState.RUNNING, 1, None) for i in range(count)]
    sentence = names(parts)
    assert sentence.startswith('daemon "d0"')
    assert sentence.endswith(end)
    assert sentence.count("daemon") == min(count, 8)
