"""`compress:` of an input whose messages come from another machine: codecs and their options."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import invalidate_caches
from importlib.util import find_spec
from typing import Final, Literal, get_args

from dora_config.frozen import Frozen
from dora_config.installation import extra_command, is_bundle

CodecName = Literal["jpeg", "h264", "lz4", "zstd"]
CODECS: Final[tuple[CodecName, ...]] = get_args(CodecName)

LOSSY: Final = ("h264", "jpeg")
"""Lossy codecs for pictures, the one with the larger loss first."""
DEFAULT_QUALITY: Final[Mapping[str, int]] = {"jpeg": 85, "h264": 55}
DEFAULT_LEVEL: Final[Mapping[str, int]] = {"lz4": 1, "zstd": 1}
HIGHEST_LEVEL: Final[Mapping[str, int]] = {"lz4": 12, "zstd": 22}
_EXTRA_MODULES: Final[Mapping[str, str]] = {"h264": "av"}
"""Modules that are not dependencies of dora-daemon, by codec; the extra has the codec's name."""


class Compression(Frozen):
    """Compression of messages between machines."""

    codec: CodecName
    quality: int | None = None
    level: int | None = None

    @property
    def lossless(self) -> bool:
        """Whether messages arrive as they were sent."""
        return self.codec not in LOSSY

    @property
    def chosen_quality(self) -> int:
        """The quality of a picture, from 1 to 100."""
        return self.quality or DEFAULT_QUALITY[self.codec]

    @property
    def chosen_level(self) -> int:
        """The effort of a lossless codec."""
        return self.level or DEFAULT_LEVEL[self.codec]


def option_problem(codec: CodecName, quality: int | None, level: int | None) -> str | None:
    """Return why the options do not fit the codec; None if they do."""
    if codec in LOSSY:
        return None if level is None else f"{codec} has a `quality`, no `level`"
    if quality is not None:
        return f"{codec} has a `level`, no `quality`"
    if level is not None and level > HIGHEST_LEVEL[codec]:
        return f"the highest level of {codec} is {HIGHEST_LEVEL[codec]}"
    return None


def library_problem(codec: CodecName) -> str | None:
    """Return the library that a codec lacks here, with the command that installs it."""
    module = _EXTRA_MODULES.get(codec)
    if module is None:
        return None
    invalidate_caches()  # the library may be installed while a daemon runs
    if find_spec(module) is not None:
        return None
    remedy = (
        f"install it ({module}) beside the dora of the computer that runs `dora cluster`, and run"
        " `dora cluster upgrade` there"
        if is_bundle()
        else extra_command("dora-daemon", codec)
    )
    return (
        f"{codec} needs the library {module} on the machines at both ends, and it is not installed"
        f" for {sys.executable}: {remedy}"
    )


def shared(wanted: Iterable[Compression | None]) -> Compression | None:
    """Return the compression of an output for all its readers on one machine.

    The output is sent once, with the requested compression that has the least loss. A lossy codec
    is used only if all readers name one.
    """
    named = list(wanted)
    lossless = [one for one in named if one is not None and one.lossless]
    if lossless:
        return lossless[0]
    lossy = [one for one in named if one is not None]
    if len(lossy) < len(named) or not lossy:
        return None
    return max(lossy, key=lambda one: (LOSSY.index(one.codec), one.chosen_quality))
