"""Base of all messages between a runner and whoever follows it; pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RunnerMessage(BaseModel):
    """Base of everything here: immutable, and tolerant of fields a newer version added.

    Validators are built at first use, since most runs need few of these models.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True
    )
