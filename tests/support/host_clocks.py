"""A clock of its own for a test host, through libfaketime in every process that starts there.

Only the wall clock: all hosts share the kernel's other clocks, as machines do after a boot.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hosts import Host

_SETTINGS = {
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_DISABLE_SHM": "1",
    "FAKETIME_CACHE_DURATION": "1",
}
_INSIDE = "/opt/faketime.so"


def give_clock(host: Host) -> None:
    """From now on `set_clock` sets the clock that new processes of the host have."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("needs the Debian package libfaketime (see .ci/run)")
    library = host.path(_INSIDE)
    library.write_bytes(found[0].read_bytes())
    library.chmod(0o755)
    lines = "".join(f"{name}={value}\n" for name, value in _SETTINGS.items())
    host.path("/etc/environment").write_text(lines)
    host.path("/etc/ld.so.preload").write_text(f"{_INSIDE}\n")


def take_clock(host: Host) -> None:
    """Remove what `give_clock` wrote."""
    for path in ("/etc/ld.so.preload", "/etc/faketimerc", "/etc/environment", _INSIDE):
        host.path(path).unlink(missing_ok=True)


def set_clock(host: Host, seconds: float) -> None:
    """Have the clock be ahead by so many seconds, in every process within about a second."""
    fresh = host.path("/etc/.faketimerc.new")
    fresh.write_text(f"{seconds:+.0f}\n")
    fresh.chmod(0o644)
    fresh.rename(host.path("/etc/faketimerc"))
