"""Quality of service and its text in tokens of rmw_zenoh (pure)."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_DEPTH = 42
"""Depth that rmw_zenoh leaves out of a token."""
_SECOND = 1_000_000_000
INFINITE = 9223372036 * _SECOND
"""Nanoseconds from which a duration of ROS is infinite."""


@dataclass(frozen=True)
class Qos:
    """Quality of service. Durations are nanoseconds; None is infinite."""

    reliable: bool = True
    transient_local: bool = False
    keep_all: bool = False
    depth: int = 10
    deadline: int | None = None
    lifespan: int | None = None
    manual_liveliness: bool = False
    lease: int | None = None

    def token(self) -> str:
        """Return the last part of a token; defaults of rmw_zenoh are left empty."""
        reliability = "" if self.reliable else "2"
        durability = "1" if self.transient_local else ""
        history = "2" if self.keep_all else ""
        depth = "" if self.depth == DEFAULT_DEPTH else str(self.depth)
        liveliness = "3" if self.manual_liveliness else ""
        return (
            f"{reliability}:{durability}:{history},{depth}:{_duration(self.deadline)}"
            f":{_duration(self.lifespan)}:{liveliness},{_duration(self.lease)}"
        )

    def __str__(self) -> str:
        words = [
            "reliable" if self.reliable else "best effort",
            "transient local" if self.transient_local else "volatile",
            "keep all" if self.keep_all else f"keep last {self.depth}",
        ]
        for name in ("deadline", "lifespan", "lease"):
            value = getattr(self, name)
            if value is not None:
                words.append(f"{name} {value / _SECOND:g} s")
        if self.manual_liveliness:
            words.append("manual liveliness")
        return ", ".join(words)


def incompatibility(offered: Qos, requested: Qos) -> str | None:
    """Return why a subscription does not receive from a publisher over DDS; None if it does.

    Over Zenoh each subscription receives from each publisher.
    """
    if requested.reliable and not offered.reliable:
        return "the publisher is best effort, the subscription reliable"
    if requested.transient_local and not offered.transient_local:
        return "the publisher is volatile, the subscription transient local"
    if (requested.deadline or INFINITE) < (offered.deadline or INFINITE):
        return "the deadline of the subscription is shorter than that of the publisher"
    if requested.manual_liveliness and not offered.manual_liveliness:
        return "the liveliness of the publisher is automatic, that of the subscription manual"
    if (requested.lease or INFINITE) < (offered.lease or INFINITE):
        return "the lease of the subscription is shorter than that of the publisher"
    return None


def parse_qos(text: str) -> Qos:
    """Return the QoS of a token; unknown codes are read as the default. Raises ValueError."""
    fields = text.split(":")
    if len(fields) < 6:
        raise ValueError(f'"{text}" is not a QoS of rmw_zenoh')
    reliability, durability, history, deadline, lifespan, liveliness = fields[:6]
    kind, _, depth = history.partition(",")
    manual, _, lease = liveliness.partition(",")
    return Qos(
        reliable=_code(reliability) != 2,
        transient_local=_code(durability) == 1,
        keep_all=_code(kind) == 2,
        depth=_code(depth) or DEFAULT_DEPTH,
        deadline=_nanoseconds(deadline),
        lifespan=_nanoseconds(lifespan),
        manual_liveliness=_code(manual) == 3,
        lease=_nanoseconds(lease),
    )


def _code(text: str) -> int:
    return int(text or "0")


def _duration(value: int | None) -> str:
    return "," if value is None else f"{value // _SECOND},{value % _SECOND}"


def _nanoseconds(text: str) -> int | None:
    seconds, _, rest = text.partition(",")
    if not seconds and not rest:
        return None
    value = _code(seconds) * _SECOND + _code(rest)
    return None if value >= INFINITE else value
