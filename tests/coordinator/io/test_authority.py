"""An authority whose files cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from dora_coordinator.io.authority import Authority, AuthorityError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an authority."""
    made = tmp_path / "authority"
    Authority(made)
    return made


@pytest.mark.parametrize("name", ["key.pem", "ca.pem"])
def test_a_torn_file_is_an_error_with_a_remedy(folder: Path, name: str) -> None:
    (folder / name).write_text("-----BEGIN")
    with pytest.raises(AuthorityError, match=rf"^{folder}: cannot read .*; move the folder aside"):
        Authority(folder)


def test_a_key_of_another_kind_is_refused(folder: Path) -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(pem)
    with pytest.raises(AuthorityError, match="not an elliptic curve key"):
        Authority(folder)
