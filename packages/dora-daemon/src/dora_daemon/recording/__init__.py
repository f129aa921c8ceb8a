"""Recordings: the recorder process, the format of the files, and the players of a replay."""

from typing import Final

RECORDER_MODULE: Final = "dora_daemon.recording.recorder"
"""Program of the recorder, a side process."""
