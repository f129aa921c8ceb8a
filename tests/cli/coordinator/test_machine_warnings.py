"""Text for differences of clocks."""

from __future__ import annotations

import pytest

from dora_cli.coordinator.machine_warnings import clock_warning, show_offset


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "+0.00 s"),
        (-0.25, "-0.25 s"),
        (119.0, "+119.0 s"),
        (-180.0, "-3.0 min"),
        (7 * 3600.0, "+7.0 h"),
        (-30 * 86400.0, "-30.0 days"),
        (-56.9 * 365.25 * 86400, "-56.9 years"),
    ],
)
def test_an_offset_is_shown_in_a_suitable_unit(seconds: float, shown: str) -> None:
    assert show_offset(seconds) == shown


def test_a_warning_has_direction_and_remedy() -> None:
    assert clock_warning(-86400.0 * 3, "this machine's").startswith(
        "its clock is 3.0 days behind this machine's: "
    )
    assert "ahead of" in clock_warning(9.0, "x")
    assert "timedatectl" in clock_warning(9.0, "x")
