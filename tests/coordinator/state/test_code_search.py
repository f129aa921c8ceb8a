"""Which machine uploads which missing file."""

from __future__ import annotations

import pytest

from dora_config.file_store import FileRefused
from dora_coordinator.state.code_search import CodeSearch

DIGESTS = [f"{number:064x}" for number in range(6)]


def test_machines_share_the_files_that_several_have() -> None:
    search = CodeSearch(DIGESTS)
    search.found("arm", DIGESTS[:4])
    search.found("leg", [*DIGESTS, "f" * 64])
    assert search.shares() == {"arm": DIGESTS[0:3:2], "leg": [DIGESTS[1], *DIGESTS[3:]]}


def test_another_machine_uploads_what_one_could_not() -> None:
    search = CodeSearch(DIGESTS[:2])
    search.found("arm", DIGESTS[:2])
    search.found("leg", DIGESTS[1:2])
    assert search.shares() == {"arm": DIGESTS[:1], "leg": DIGESTS[1:2]}
    search.uploaded("leg", (), "no disk\x1b")
    search.uploaded("arm", DIGESTS[:1], None)
    assert search.shares() == {"arm": DIGESTS[1:2]}
    search.uploaded("arm", (), None)
    with pytest.raises(FileRefused) as refused:
        search.shares()
    assert refused.value.status == 502
    assert "leg: no disk" in str(refused.value)
    assert "arm: it was removed there" in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_a_file_that_no_machine_has() -> None:
    search = CodeSearch(DIGESTS[:2])
    search.found("arm", DIGESTS[:1])
    with pytest.raises(FileRefused) as refused:
        search.shares()
    assert refused.value.status == 404
