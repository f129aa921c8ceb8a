"""Settings of a coordinator: limits and times with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from dora_config.errors import DoraError
from dora_config.protocol.daemon import COORDINATOR_SILENCE, HEARTBEAT_INTERVAL
from dora_config.retry import RetryPolicy
from dora_config.yaml.quantities import parse_duration, parse_size

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    heartbeat_interval: float = HEARTBEAT_INTERVAL
    daemon_silence_warning: float = 15.0
    daemon_silence_limit: float = 30.0
    """Silence after which a daemon is disconnected."""
    coordinator_silence_limit: float = COORDINATOR_SILENCE
    """Silence after which daemons reconnect to the coordinator."""
    start_timeout: float = 60.0
    """Time for all daemons to start their nodes, and again to release them."""
    link_timeout: float = 10.0
    """Time for machines that exchange data to reach each other at a start."""
    slow_link_timeout: float = 60.0
    """Seconds for linking over a slow network: connections succeed but take long."""
    build_timeout: float = 1200.0
    """Time for all daemons to build their nodes."""
    stop_margin: float = 30.0
    """Time after 1.5 grace periods until an unconfirmed stop is given up."""
    recovery_timeout: float = 60.0
    """Time after a restart until dataflows that no daemon reports have failed."""
    recovery_backoff: float = 30.0
    """Longest pause between attempts to spawn the same part again; the first ones are shorter."""
    destroy_timeout: float = 46.0
    """Time until the coordinator ends although dataflows or daemons have not."""
    archived_dataflows: int = 200
    """Ended dataflows that are kept; the oldest is removed first."""
    ended_daemon_shown: float = 600.0
    """Seconds for which `cluster status` lists a daemon after its regular end."""
    lost_daemon_shown: float = 24 * 3600.0
    """Seconds for which `cluster status` lists a lost daemon, unless a dataflow waits for it."""
    streams_per_client: int = 16
    max_message_bytes: int = 16 * MIB
    max_connections: int = 4096
    max_pending_connections: int = 1024
    """Connections without a valid token so far; one address may have a quarter of them."""
    new_connections_per_minute: int = 20
    """Connections without a valid token, per address; loopback is exempt."""
    fleet_checks: int = 0
    """Whether `rollout: {check: COMMAND}` may run commands on the coordinator's machine."""
    metrics_edges: int = 2000
    """Edges in `GET /metrics` and in exported metrics; each has about 20 series."""
    max_code_bytes: int = 16384 * MIB
    """Size of all code that is kept for machines; the least recently used is removed."""

    @property
    def recovery(self) -> RetryPolicy:
        """Return when a repair is tried again."""
        return RetryPolicy(longest=self.recovery_backoff, stable=2 * self.recovery_backoff)


def parse_setting(settings: dict[str, Any], text: str) -> None:
    """Add the pair ``name=value`` to ``settings``; raise `DoraError` if it is not a setting."""
    name, equals, value = text.partition("=")
    defaults = {field.name: field.default for field in fields(Settings)}
    if not equals or name not in defaults:
        raise DoraError(f'setting "{text}": expected NAME=VALUE; names: {", ".join(defaults)}')
    try:
        number = _parse_value(name, value, is_seconds=isinstance(defaults[name], float))
    except ValueError as error:
        raise DoraError(f"setting {name}: {error}") from error
    if number <= 0:
        raise DoraError(f'setting {name}: expected a value above 0, found "{value}"')
    settings[name] = number


def _parse_value(name: str, value: str, *, is_seconds: bool) -> float:
    if is_seconds:
        return parse_duration(value)
    if name.endswith("_bytes"):
        return parse_size(value)
    if not value.isdecimal():
        raise ValueError(f'expected a whole number, found "{value}"')
    return int(value)
