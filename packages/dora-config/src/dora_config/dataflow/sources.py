"""Sources of inputs: an output of a node, a timer or logs; pure.

Formatting a timer uses the coarsest unit that is exact.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Final, Literal

from pydantic import Field

from dora_config.errors import InvalidId
from dora_config.frozen import Frozen
from dora_config.ids import parse_data_id, parse_node_id
from dora_config.yaml.suggest import closest

LogLevel = Literal["stdout", "error", "warn", "info", "debug", "trace"]
LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("stdout", "trace", "debug", "info", "warn", "error")
"""Lowest first; ``stdout`` includes everything, also plain printed lines."""

MODULE_PORT_PREFIX = "_mod/"
"""Prefix of sources in a module file that are inputs of the module."""

_UNIT_NANOSECONDS = {"secs": 10**9, "millis": 10**6, "micros": 10**3, "nanos": 1}
_MAX_INTERVAL_NS = 10**18
"""Longest interval of a timer in nanoseconds: about 32 years."""
_HZ_TEXT = re.compile(
    r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$|^[+-]?(inf|nan|infinity)$", re.I
)


class OutputSource(Frozen):
    """Output of another node; `output` is `op/name` for an operator."""

    type: Literal["output"] = "output"
    node: str
    output: str

    def __str__(self) -> str:
        return f"{self.node}/{self.output}"


class TimerSource(Frozen):
    """Timer with a fixed interval."""

    type: Literal["timer"] = "timer"
    interval_ns: int = Field(gt=0)

    def __str__(self) -> str:
        for unit, nanoseconds in _UNIT_NANOSECONDS.items():
            if self.interval_ns % nanoseconds == 0:
                return f"dora/timer/{unit}/{self.interval_ns // nanoseconds}"
        raise AssertionError("every interval is a whole number of nanoseconds")


class LogSource(Frozen):
    """Log entries of at least `level` from one node, or from all others (None)."""

    type: Literal["logs"] = "logs"
    level: LogLevel | None = None
    node: str | None = None

    def __str__(self) -> str:
        if self.level is None:
            return "dora/logs"
        return f"dora/logs/{self.level}" + (f"/{self.node}" if self.node else "")


InputSource = Annotated[OutputSource | TimerSource | LogSource, Field(discriminator="type")]


def parse_source(text: str) -> OutputSource | TimerSource | LogSource:
    """Parse the source of an input; raise `ValueError` with a message."""
    node, slash, rest = text.partition("/")
    if not slash:
        raise ValueError(
            f"input must start with `<source>/`, found {text!r}: "
            "expected <node>/<output>, dora/timer/<unit>/<value> or dora/logs"
        )
    if node == "dora":
        return _parse_virtual_source(text, rest)
    try:
        return OutputSource(node=parse_node_id(node), output=parse_data_id(rest, "output"))
    except InvalidId as error:
        raise ValueError(f"in source {text!r}: {error}") from None


def _parse_virtual_source(text: str, rest: str) -> TimerSource | LogSource:
    kind, *arguments = rest.split("/")
    match kind:
        case "timer":
            return _parse_timer(text, arguments)
        case "logs":
            return _parse_logs(text, arguments)
    near = closest(kind, ("timer", "logs"))
    raise ValueError(
        f"unknown dora input {text!r}: expected dora/timer/<unit>/<value> or dora/logs" + near
    )


def _parse_timer(text: str, arguments: list[str]) -> TimerSource:
    if len(arguments) != 2 or not all(arguments):
        raise ValueError(
            f"timer {text!r} must specify unit and value, for example dora/timer/millis/50"
        )
    unit, value = arguments
    if unit == "hz":
        return _parse_frequency(text, value)
    if unit not in _UNIT_NANOSECONDS:
        known = ", ".join([*_UNIT_NANOSECONDS, "hz"])
        near = closest(unit, [*_UNIT_NANOSECONDS, "hz"])
        raise ValueError(f"unknown timer unit {unit!r} in {text!r}: expected one of {known}{near}")
    if not re.fullmatch(r"\d{1,30}", value, re.ASCII):
        raise ValueError(
            f"the value of timer {text!r} must be an integer, found {value!r}"
            " (only dora/timer/hz/ accepts fractions)"
        )
    interval = int(value) * _UNIT_NANOSECONDS[unit]
    if interval == 0:
        raise ValueError(f"the value of timer {text!r} must be non-zero")
    return _timer(text, interval)


def _parse_frequency(text: str, value: str) -> TimerSource:
    if not _HZ_TEXT.match(value):
        raise ValueError(f"hz must be a positive number, found {value!r} in {text!r}")
    frequency = float(value)
    if not (math.isfinite(frequency) and frequency > 0):
        raise ValueError(f"hz must be a positive finite number, found {value} in {text!r}")
    if frequency < 1e9 / _MAX_INTERVAL_NS:
        raise ValueError(f"the interval of timer {text!r} is longer than 31 years")
    interval = round(1e9 / frequency)
    if interval == 0:
        raise ValueError(f"timer {text!r} has an interval below one nanosecond")
    return _timer(text, interval)


def _timer(text: str, interval: int) -> TimerSource:
    if interval > _MAX_INTERVAL_NS:
        raise ValueError(f"the interval of timer {text!r} is longer than 31 years")
    return TimerSource(interval_ns=interval)


def _parse_logs(text: str, arguments: list[str]) -> LogSource:
    if not arguments:
        return LogSource()
    level = parse_log_level(arguments[0])
    if len(arguments) == 1:
        return LogSource(level=level)
    if len(arguments) > 2:
        raise ValueError(f"unknown dora input {text!r}: expected dora/logs/<level>/<node>")
    return LogSource(level=level, node=parse_node_id(arguments[1]))


def parse_log_level(text: str) -> LogLevel:
    """Parse a log level in any case; raise `ValueError` with the known levels."""
    lower = text.lower()
    for level in LOG_LEVELS:
        if lower == level or (lower, level) == ("warning", "warn"):
            return level
    raise ValueError(
        f"unknown log level {text!r}: expected one of {', '.join(LOG_LEVELS)}"
        + closest(lower, LOG_LEVELS)
    )
