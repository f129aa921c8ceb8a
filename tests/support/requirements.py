"""What a test needs of the machine: without it the test is skipped; in CI it fails."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

NO_SKIPS = "DORA_TESTS_NO_SKIPS"
"""Set by `.ci/run`, which installs all programs and runs as root."""

PACKAGES: Final = {
    "bridge": "iproute2",
    "chromium": "chromium",
    "dbus-daemon": "dbus",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "pivot_root": "util-linux",
    "prometheus": "prometheus",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "unshare": "util-linux",
    "zsh": "zsh",
    "/lib/systemd/systemd": "systemd",
    "/usr/sbin/sshd": "openssh-server",
    "/usr/lib/*/faketime/libfaketimeMT.so.1": "libfaketime",
    "/usr/lib/*/security/pam_systemd.so": "libpam-systemd",
}
"""Package of Debian for each program or file."""
_INSTALL: Final = re.compile(r"\(apt-get install (.*)\)")


def require(met: object, need: str) -> None:
    """Skip the test unless a need is met; with ``NO_SKIPS`` fail it."""
    if met:
        return
    if os.environ.get(NO_SKIPS):
        pytest.fail(f"needs {need}")
    pytest.skip(f"needs {need}")


def require_installed(*names: str, path: str | None = None) -> None:
    """Require programs (on ``path``) or files: absolute paths, which may be patterns."""
    absent = [
        name
        for name in names
        if not (
            any(Path("/").glob(name[1:])) if name.startswith("/") else shutil.which(name, path=path)
        )
    ]
    packages = sorted({PACKAGES[name] for name in absent if name in PACKAGES})
    install = f" (apt-get install {' '.join(packages)})" if packages else ""
    require(not absent, f"{', '.join(absent)}{install}")


def require_root() -> None:
    require(os.geteuid() == 0, "root")


def summary(reasons: Iterable[str]) -> list[str]:
    """Return one line for each missing package, and for each other reason of skipped tests."""
    packages: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for reason in reasons:
        found = _INSTALL.search(reason)
        if found is None:
            others[reason.removeprefix("Skipped: ")] += 1
        else:
            packages.update(found.group(1).split())
    return [
        *(
            f"{n} skipped without {name}: apt-get install {name}"
            for name, n in sorted(packages.items())
        ),
        *(f"{n} skipped: {reason}" for reason, n in sorted(others.items())),
    ]
