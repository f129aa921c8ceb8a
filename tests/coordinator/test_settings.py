"""Settings from the command line."""

from __future__ import annotations

import pytest

from dora_config.errors import DoraError
from dora_coordinator.settings import Settings, parse_setting


def test_settings_are_quantities_above_zero_with_known_names() -> None:
    given: dict[str, object] = {}
    parse_setting(given, "max_connections=9")
    parse_setting(given, "recovery_backoff=0.5")
    parse_setting(given, "start_timeout=2m")
    parse_setting(given, "max_code_bytes=2GB")
    assert Settings(**given) == Settings(  # type: ignore[arg-type]
        max_connections=9, recovery_backoff=0.5, start_timeout=120.0, max_code_bytes=2 << 30
    )
    for wrong in (
        "max_connections=1.5",
        "max_connections=0",
        "recovery_backoff=nan",
        "speed=1",
        "recovery_backoff=0s",
        "max_code_bytes=4 parsecs",
    ):
        with pytest.raises(DoraError, match=wrong.split("=")[0]):
            parse_setting(given, wrong)
