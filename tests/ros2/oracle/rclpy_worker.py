"""Serialises and deserialises messages with rclpy; runs in an environment that has ROS wheels.

Requests and answers are pickled on standard input and output: ``("serialise", name, value)`` or
``("deserialise", name, payload)``. An answer is ``(True, result)`` or ``(False, text)``.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from typing import Any


def message_class(name: str) -> Any:
    """Return the class of a message, or of an implicit message of a service or action."""
    package, kind, last = name.split("/")
    module = importlib.import_module(f"{package}.{kind}")
    if kind == "msg":
        return getattr(module, last)
    owner, *parts = last.split("_")
    found = getattr(module, owner)
    if parts[0] in ("SendGoal", "GetResult", "FeedbackMessage"):
        found = found.Impl
        parts[0] += "Service" if parts[0] != "FeedbackMessage" else ""
    for part in parts:
        found = getattr(found, part)
    return found


def filled(message: Any, value: dict[str, Any]) -> Any:
    for (name, text), slot in zip(
        message.get_fields_and_field_types().items(), message.SLOT_TYPES, strict=True
    ):
        if name in value:
            element = getattr(slot, "value_type", slot)
            nested = getattr(element, "namespaces", None)
            convert: Any = lambda one: one  # noqa: E731
            if nested is not None:
                cls = message_class("/".join([*element.namespaces, element.name]))
                convert = lambda one, cls=cls: filled(cls(), one)  # noqa: E731
            elif "octet" in text:
                convert = lambda one: bytes([one])  # noqa: E731
            held = value[name]
            several = element is not slot
            setattr(message, name, [convert(one) for one in held] if several else convert(held))
    return message


def plain(value: Any) -> Any:
    if hasattr(value, "get_fields_and_field_types"):
        return {
            name: plain(getattr(value, name))
            for name in value.get_fields_and_field_types()
            if name != "structure_needs_at_least_one_member"
        }
    if isinstance(value, bytes):
        return value[0]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from rclpy.serialization import deserialize_message, serialize_message

    while True:
        try:
            action, name, held = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            cls = message_class(name)
            if action == "serialise":
                answer = (True, serialize_message(filled(cls(), held)))
            else:
                answer = (True, plain(deserialize_message(held, cls)))
        except Exception as error:  # noqa: BLE001 - the test reports it
            answer = (False, f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
