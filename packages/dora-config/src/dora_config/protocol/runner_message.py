"""Base of the messages of a runner; pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RunnerMessage(BaseModel):
    """Immutable message that ignores fields of newer versions.

    Validators are built at first use, since most runs need few of these models.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True
    )
