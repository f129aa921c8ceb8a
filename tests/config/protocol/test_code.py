"""Paths in file lists stay below the node's folder."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

A = "a" * 64


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a//b", "./a", "a/", "a\0b"])
def test_paths_that_could_lead_out_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        CodeFile(path=path, sha256=A, size=0)
    with pytest.raises(ValidationError):
        CodeLink(path=path, target="x")


@pytest.mark.parametrize("target", ["/etc", "..", "../..", "a/../../.."])
def test_links_that_lead_out_are_refused(target: str) -> None:
    with pytest.raises(ValidationError):
        CodeLink(path="d/link" if target != ".." else "link", target=target)


def test_files_below_a_link_are_refused() -> None:
    link = CodeLink(path="d", target="e")
    with pytest.raises(ValidationError, match="its folder is a link"):
        CodeSet(files=(CodeFile(path="d/x", sha256=A, size=0),), links=(link,))
    with pytest.raises(ValidationError, match="twice"):
        CodeSet(files=(CodeFile(path="d", sha256=A, size=0),), links=(link,))


def test_digest_survives_encoding() -> None:
    code = CodeSet(files=(CodeFile(path="d/x", sha256=A, size=3),))
    assert CodeSet.model_validate_json(code.text()).digest() == code.digest()
