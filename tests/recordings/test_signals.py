"""SIGTERM ends a recording once, however often it is sent."""

from __future__ import annotations

import os
import signal

from dora_recordings.recorder import _until_sigterm


def test_a_second_signal_is_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        end = _until_sigterm()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert os.read(end, 1) == b""
        os.close(end)
    finally:
        signal.signal(signal.SIGTERM, before)
