"""Base and numbers of models in files and messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# What machines report is bounded, so that arithmetic with it cannot overflow.
Count = Annotated[int, Field(gt=-(10**30), lt=10**30)]
"""Far above counters of 64 bits and differences of them."""
Quantity = Annotated[float, Field(gt=-1e30, lt=1e30)]
UnixTime = Annotated[float, Field(ge=0, le=1e11)]
"""A date that the C library can format."""


class Frozen(BaseModel):
    """Immutable model that ignores fields of newer versions, which allows rollbacks.

    Validators are built at first use, since most processes need few of the models.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True
    )
