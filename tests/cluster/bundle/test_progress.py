"""Progress of a transfer."""

from __future__ import annotations

from dora_cluster.bundle.install import sending


def test_each_mebibyte_is_shown_once() -> None:
    shown: list[str] = []
    progress = sending(shown.append, 12 << 20, offset=9 << 20)
    for sent in range(0, (3 << 20) + 1, 1 << 18):
        progress(sent)
    assert shown == [f"sending {number} of 12 MiB" for number in (9, 10, 11, 12)]


def test_small_transfers_are_shown_in_kibibytes() -> None:
    shown: list[str] = []
    sending(shown.append, 5000)(5000)
    assert shown == ["sending 0 of 4 KiB", "sending 4 of 4 KiB"]
