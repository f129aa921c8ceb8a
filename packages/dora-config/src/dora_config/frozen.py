"""Base of models in files and messages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable model that ignores fields of newer versions, which allows rollbacks.

    Validators are built at first use, since most processes need few of the models.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True
    )
