"""`$VAR` in texts."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow.variables import (
    UndefinedVariable,
    escape_variables,
    expand_parameters,
    expand_path,
    expand_variables,
    is_reserved,
)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$A", "1"),
        ("x${A}y", "x1y"),
        ("$A$B", "12"),
        ("${NO:-other}", "other"),
        ("${NO:-}", ""),
        ("${A:-other}", "1"),
        ("$$A", "$A"),
        ("$$$A", "$1"),
        ("5 $", "5 $"),
        ("$1", "$1"),
        ("${}", "${}"),
        ("${A", "${A"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand_variables(text, {"A": "1", "B": "2"}) == expanded


def test_values_are_not_expanded_again() -> None:
    assert expand_variables("$A", {"A": "$B", "B": "2"}) == "$B"


def test_an_undefined_variable_is_named() -> None:
    with pytest.raises(UndefinedVariable, match=r"environment variable \$NO is not defined"):
        expand_variables("x $NO", {})


@given(st.text(max_size=30))
def test_escaped_texts_expand_to_themselves(text: str) -> None:
    assert expand_variables(escape_variables(text), {}) == text


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("$HOME/a.py", "/h/a.py"),
        ("${HOME}/a.py", "/h/a.py"),
        ("$HOMER/a.py", "$HOMER/a.py"),
        ("$USER", "$USER"),
        ("$OTHER/a", "$OTHER/a"),
    ],
)
def test_paths_expand_few_variables(path: str, expanded: str) -> None:
    assert expand_path(path, {"HOME": "/h", "OTHER": "no"}) == expanded


def test_parameters() -> None:
    assert expand_parameters("--k $PARAM_K ${PARAM_K} $HOME", {"PARAM_K": "3"}) == "--k 3 3 $HOME"
    with pytest.raises(UndefinedVariable):
        expand_parameters("$PARAM_X", {})


@pytest.mark.parametrize(
    "name", ["DORA_NODE_CONFIG", "ZENOH_CONFIG", "LD_PRELOAD", "DYLD_X", "DORA_ZENOH_LISTEN"]
)
def test_reserved_names(name: str) -> None:
    assert is_reserved(name)
    assert not is_reserved("MY_" + name)
