"""Paths in file lists stay below the node's folder."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dora_config.protocol import code
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

A = "a" * 64


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a//b", "./a", "a/", "a\0b"])
def test_paths_that_could_lead_out_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        CodeFile(path=path, sha256=A, size=0)
    with pytest.raises(ValidationError):
        CodeLink(path=path, target="x")


def links(**targets: str) -> CodeSet:
    """A set of links, whose names have ``__`` in place of the slash."""
    paths = {name.replace("__", "/"): target for name, target in targets.items()}
    return CodeSet(links=tuple(CodeLink(path=path, target=end) for path, end in paths.items()))


@pytest.mark.parametrize(
    "targets",
    [
        {"link": "/etc"},
        {"link": ".."},
        {"d__link": "../.."},
        {"d__link": "a/../../.."},
        {"d__l1": "..", "k": "d/l1/.."},
        {"d__e__l1": "../..", "k": "d/e/l1/x/../../y"},
        {"k": "l2/..", "l2": "./d//l1", "d__l1": "../"},
    ],
)
def test_links_that_lead_out_are_refused(targets: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="outside of the folder"):
        links(**targets)


def test_links_through_other_links_may_stay_inside() -> None:
    assert links(d__e="../f/g", k="d/e/..", h="k/./x", up__top="..").paths
    chain = {f"l{number}": f"l{number + 1}" for number in range(39)}
    assert links(**chain, l39="end").paths


def test_links_to_themselves_are_refused() -> None:
    with pytest.raises(ValidationError, match="links to itself"):
        links(a="b", b="a/x")


def test_files_below_a_link_or_file_are_refused() -> None:
    link = CodeLink(path="d", target="e")
    below = CodeFile(path="d/x", sha256=A, size=0)
    with pytest.raises(ValidationError, match="its folder is a file or link"):
        CodeSet(files=(below,), links=(link,))
    with pytest.raises(ValidationError, match="its folder is a file or link"):
        CodeSet(files=(CodeFile(path="d", sha256=A, size=0), below))
    with pytest.raises(ValidationError, match="twice"):
        CodeSet(files=(CodeFile(path="d", sha256=A, size=0),), links=(link,))


def test_digest_survives_encoding() -> None:
    code = CodeSet(files=(CodeFile(path="d/x", sha256=A, size=3),))
    assert CodeSet.model_validate_json(code.text()).digest() == code.digest()


def test_paths_and_headers() -> None:
    assert code.FILES_PATH == "/api/files"
    assert code.file_path("ab") == "/api/files/ab"
    assert (code.OFFSET_HEADER, code.FREE_HEADER, code.PLACE_HEADER) == (
        "X-Dora-Offset",
        "X-Dora-Free",
        "X-Dora-Store",
    )
