"""Validity of host certificates, which ssh-keygen signs."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from dora_cli.ssh.certificates import objection
from dora_cli.ssh.known_hosts import Key

NOW = 1_790_000_000.0  # 2026-09-21
ALWAYS = "always:forever"


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, timeout=30)


def read(path: Path) -> Key:
    kind, encoded = path.read_text().split()[:2]
    return Key(kind, base64.b64decode(encoded))


class Authority:
    def __init__(self, folder: Path, kind: str = "ed25519") -> None:
        self.folder = folder
        for name in ("ca", "host"):
            keygen("-t", kind, "-N", "", "-f", folder / name)
        self.key = read(folder / "ca.pub")

    def signs(self, *options: str) -> bytes:
        keygen("-s", self.folder / "ca", "-I", "x", *options, self.folder / "host.pub")
        return read(self.folder / "host-cert.pub").blob


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_certificate_for_the_host(tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path, kind)
    blob = authority.signs("-h", "-n", "other,robot.lan", "-V", ALWAYS)
    assert objection(blob, [authority.key], "Robot.lan", NOW) is None
    assert objection(blob, [authority.key], "other", NOW) is None


def test_patterns_of_hosts(authority: Authority) -> None:
    blob = authority.signs("-h", "-n", "*.lan", "-V", ALWAYS)
    assert objection(blob, [authority.key], "robot.lan", NOW) is None
    assert objection(blob, [authority.key], "robot", NOW) == "it is for *.lan"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-n", "robot", "-V", ALWAYS), "it is for a user, not for a host"),
        (("-h", "-n", "gpu", "-V", ALWAYS), "it is for gpu"),
        (("-h", "-V", ALWAYS), "it is for no host"),
        (("-h", "-n", "robot", "-V", "20200101Z:20210101Z"), "it ended at 2021-01-01 00:00 UTC"),
        (("-h", "-n", "robot", "-V", "20400101Z:forever"), "it begins at 2040-01-01 00:00 UTC"),
    ],
)
def test_invalid_certificates(authority: Authority, options: list[str], reason: str) -> None:
    assert objection(authority.signs(*options), [authority.key], "robot", NOW) == reason


def test_other_authorities_and_changed_certificates(authority: Authority, tmp_path: Path) -> None:
    blob = authority.signs("-h", "-n", "robot", "-V", ALWAYS)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").key
    found = objection(blob, [other], "robot", NOW)
    assert found == f"it is signed by {authority.key}, which is not an authority for this host"
    changed = blob.replace(b"robot", b"robit")
    assert "it cannot be verified" in (objection(changed, [authority.key], "robit", NOW) or "")
    assert "it cannot be verified" in (objection(b"junk", [authority.key], "robot", NOW) or "")
    bare = read(tmp_path / "host.pub").blob
    assert "it is a bare key" in (objection(bare, [authority.key], "robot", NOW) or "")
