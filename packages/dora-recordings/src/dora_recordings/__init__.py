"""Recordings: the recorder process, the format of the files, and the players of a replay."""

from typing import Final

from dora_recordings._version import __version__

__all__ = ["RECORDER_MODULE", "__version__"]

RECORDER_MODULE: Final = "dora_recordings.recorder"
"""Program of the recorder, a side process."""
