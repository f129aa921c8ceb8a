"""Sets the clock of a test host, through libfaketime in every new process.

Only the wall clock changes; the kernel's other clocks stay as they are.
"""

from __future__ import annotations

from pathlib import Path

from support.cluster.hosts import Host
from support.requirements import require_installed

_SETTINGS = {
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_DISABLE_SHM": "1",
    "FAKETIME_CACHE_DURATION": "1",
    # With the fix, each change of the GIL between two busy threads takes ten times as long.
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
}
_LIBRARY = "*/faketime/libfaketimeMT.so.1"
_INSIDE = "/opt/faketime.so"


def give_clock(host: Host) -> None:
    """Let `set_clock` set the clock of all processes that start from now on."""
    require_installed(f"/usr/lib/{_LIBRARY}")
    found = next(Path("/usr/lib").glob(_LIBRARY))
    library = host.path(_INSIDE)
    library.write_bytes(found.read_bytes())
    library.chmod(0o755)
    lines = "".join(f"{name}={value}\n" for name, value in _SETTINGS.items())
    host.path("/etc/environment").write_text(lines)
    host.path("/etc/ld.so.preload").write_text(f"{_INSIDE}\n")


def take_clock(host: Host) -> None:
    """Remove the files of `give_clock`."""
    for path in ("/etc/ld.so.preload", "/etc/faketimerc", "/etc/environment", _INSIDE):
        host.path(path).unlink(missing_ok=True)


def set_clock(host: Host, seconds: float) -> None:
    """Set the clock ahead by so many seconds; takes effect within about a second."""
    fresh = host.path("/etc/.faketimerc.new")
    fresh.write_text(f"{seconds:+.0f}\n")
    fresh.chmod(0o644)
    fresh.rename(host.path("/etc/faketimerc"))
