"""Limits and times of a coordinator, each with its default; every one can be set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from dora_config.errors import DoraError
from dora_config.protocol.daemon import COORDINATOR_SILENCE, HEARTBEAT_INTERVAL
from dora_config.yaml.quantities import parse_duration, parse_size

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    heartbeat_interval: float = HEARTBEAT_INTERVAL
    daemon_silence_warning: float = 15.0
    daemon_silence_limit: float = 30.0
    """A daemon silent for longer counts as lost."""
    coordinator_silence_limit: float = COORDINATOR_SILENCE
    """Told to daemons: after so long without a word they connect anew."""
    start_timeout: float = 60.0
    """Within which every daemon must have prepared and released its part."""
    link_timeout: float = 10.0
    """Within which machines that exchange data must have reached each other at a start."""
    slow_link_timeout: float = 60.0
    """The same where connections are made but take long."""
    build_timeout: float = 1200.0
    """Within which every daemon must have built its nodes."""
    stop_margin: float = 30.0
    """Beyond one and a half graces, until a stop that nobody confirms is given up."""
    recovery_timeout: float = 60.0
    """After a restart of the coordinator: what no daemon has reported by then has failed."""
    recovery_backoff: float = 30.0
    """Between two attempts to spawn the same part again."""
    destroy_timeout: float = 46.0
    """Until the coordinator ends although dataflows have not."""
    archived_dataflows: int = 200
    """Ended dataflows that are kept; the oldest goes first."""
    ended_daemon_shown: float = 600.0
    """After its end in good order, until `cluster status` lists a daemon no longer."""
    lost_daemon_shown: float = 24 * 3600.0
    """The same for a daemon that was lost and that no dataflow waits for."""
    streams_per_client: int = 16
    max_message_bytes: int = 16 * MIB
    max_connections: int = 4096
    new_connections_per_minute: int = 20
    """Per address, of peers that show no valid token; loopback is exempt."""
    max_artifact_bytes: int = 4096 * MIB
    max_code_bytes: int = 16384 * MIB
    """Of all code that is kept for machines; the least recently used goes."""


def parse_setting(settings: dict[str, Any], text: str) -> None:
    """Add the pair ``name=value`` to ``settings``; raise `DoraError` if it is not a setting."""
    name, equals, value = text.partition("=")
    defaults = {field.name: field.default for field in fields(Settings)}
    if not equals or name not in defaults:
        raise DoraError(
            f'setting "{text}": expected NAME=VALUE with one of the names {", ".join(defaults)}'
        )
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
