"""Base and numbers of models in files and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import SchemaError

# Numbers in reports of machines are bounded, so that arithmetic with them cannot overflow.
Count = Annotated[int, Field(gt=-(10**30), lt=10**30)]
"""Count, with limits far above counters of 64 bits and their differences."""
Quantity = Annotated[float, Field(gt=-1e30, lt=1e30)]
UnixTime = Annotated[float, Field(ge=0, le=1e11)]
"""A date that the C library can format."""


def readable_by(ours: tuple[int, int]) -> AfterValidator:
    """Return a validator of the version of a format, which refuses newer major versions."""

    def check(version: tuple[int, int]) -> tuple[int, int]:
        if version[0] > ours[0]:
            raise ValueError(f"format {version[0]}, expected {ours[0]}")
        return version

    return AfterValidator(check)


class Frozen(BaseModel):
    """Immutable model that ignores fields of newer versions, which allows rollbacks.

    Validators are built at first use, since most processes need few of the models. The class
    argument ``kind`` adds the field of this name, which selects the class in a tagged union.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str: ...

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True
    )

    def __init_subclass__(cls, kind: str | None = None, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if kind is not None:  # before pydantic reads the annotations
            cls.__annotations__ = {"kind": Literal[kind], **cls.__annotations__}
            setattr(cls, "kind", kind)  # noqa: B010 - a property for type checkers


def is_interrupt(error: Exception) -> bool:
    """Return whether an exception was Ctrl-C.

    Pydantic converts KeyboardInterrupt to a SchemaError while it builds a validator.
    """
    return isinstance(error, SchemaError) and str(error).rstrip(": \n").endswith(
        "KeyboardInterrupt"
    )


def first_problem(error: ValidationError) -> str:
    """Return the first wrong field of a model, and the reason."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
