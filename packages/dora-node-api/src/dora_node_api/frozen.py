"""Frozen records that are faster to declare than dataclasses.

Each node of a dataflow pays for every import at its start, and `import dataclasses` takes longer
than the rest of this package. So the records that a starting node needs are subclasses of
`FrozenRecord`. For a type checker they are frozen dataclasses; at run time they have the same
constructor, `==`, `hash`, `repr`, positional patterns and `replace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import dataclass_transform
else:

    def dataclass_transform(**_options):
        return lambda decorated: decorated


F = TypeVar("F", bound="FrozenRecord")


@dataclass_transform(frozen_default=True)
class FrozenRecord:
    """Base of frozen records: annotated class attributes are the fields, in order."""

    __match_args__: tuple[str, ...] = ()
    if not TYPE_CHECKING:
        __match_args__ = ()
        _defaults = {}

    def __init_subclass__(cls) -> None:
        own = [n for n, t in cls.__annotations__.items() if "ClassVar" not in str(t)]
        if not TYPE_CHECKING:
            cls.__match_args__ = tuple(dict.fromkeys((*cls.__match_args__, *own)))
            cls._defaults = cls._defaults | {n: vars(cls)[n] for n in own if n in vars(cls)}

    if not TYPE_CHECKING:

        def __init__(self, *args, **kwargs):
            names = self.__match_args__
            given = dict(zip(names, args, strict=False))
            if len(args) > len(names) or not kwargs.keys().isdisjoint(given):
                raise TypeError(f"{type(self).__name__}: too many values, or a field given twice")
            given.update(kwargs)
            values = self._defaults | given
            missing = [name for name in names if name not in values]
            if missing or len(values) > len(names):
                extra = [name for name in given if name not in names]
                raise TypeError(f"{type(self).__name__}: missing {missing}, unknown {extra}")
            self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete {name!r}")

    def _values(self) -> tuple[object, ...]:
        return tuple(self.__dict__[name] for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, FrozenRecord):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({values})"


def replace(record: F, **changes: Any) -> F:
    """Return a copy of `record` with changed fields. Raises TypeError for an unknown field."""
    values = {name: record.__dict__[name] for name in record.__match_args__}
    return type(record)(**{**values, **changes})
