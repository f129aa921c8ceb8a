"""A patch turns the state before into the state now."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from dora_ui.feed import difference

values = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2) | st.lists(st.integers(0, 2)),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)
states = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def applied(target: Any, patch: Any) -> Any:
    """The algorithm of RFC 7396, as the page has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = applied(result.get(key), value)
    return result


@given(states, states)
def test_a_patch_leads_to_the_state(before: dict[str, Any], now: dict[str, Any]) -> None:
    assert applied(before, difference(before, now)) == now


@given(states)
def test_equal_states_have_no_difference(state: dict[str, Any]) -> None:
    assert difference(state, dict(state)) == {}


def test_only_what_has_changed_is_sent() -> None:
    before = {"nodes": {"a": {"cpu": 1, "pid": 7}, "b": {"cpu": 2}}}
    now = {"nodes": {"a": {"cpu": 3, "pid": 7}, "c": {"cpu": 2}}}
    patch = {"nodes": {"a": {"cpu": 3}, "b": None, "c": {"cpu": 2}}}
    assert difference(before, now) == patch
