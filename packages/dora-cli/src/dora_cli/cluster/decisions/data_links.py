"""What a measured connection between two machines means for data links; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dora_cli.clock_offset import show_offset
from dora_config.cluster.models import Machine
from dora_config.protocol.links import FIRST_PORT, LAST_PORT

MAX_LATENCY = 0.1


@dataclass(frozen=True, slots=True)
class PairResult:
    """Table cell for a pair of machines, and the problems with their remedies."""

    cell: str
    problems: tuple[str, ...] = ()


def data_ports(machine: Machine) -> tuple[int, int]:
    """Return the first and the last port at which links of the machine may listen."""
    first = machine.zenoh_port or FIRST_PORT
    return first, min(first + LAST_PORT - FIRST_PORT, 65535)


def assess_pair(source: Machine, target: Machine, ping: Mapping[str, Any]) -> PairResult:
    """Assess the answer of ``ping`` from ``source`` to ``target``."""
    if "reason" in ping:
        first, last = data_ports(target)
        return PairResult(
            "FAILED",
            (
                f"no data link: {ping['reason']}; open ports {first}-{last} (TCP) of {target.id} "
                f"for {source.id}, or set zenoh_addr to a reachable address",
            ),
        )
    seconds, clock = ping["seconds"], ping["clock"]
    problems = []
    if seconds > MAX_LATENCY:
        problems.append(f"a round trip takes {seconds * 1000:.0f} ms; check the network")
    return PairResult(f"{seconds * 1000:.2f} ms {_clock(clock)}", tuple(problems))


def _clock(seconds: float) -> str:
    return f"{seconds * 1000:+.2f} ms" if abs(seconds) < 1 else show_offset(seconds)
