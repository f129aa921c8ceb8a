"""Errors of operations and their HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from dora_config.errors import DoraError
from dora_config.protocol.control import EndedDataflow, FailureCode

ErrorCode = FailureCode | Literal["invalid", "version", "unavailable"]

STATUSES: Final[Mapping[str, int]] = {
    "invalid": 400,
    "version": 400,
    "not_found": 404,
    "nothing_runs": 404,
    "ambiguous": 409,
    "conflict": 409,
    "placement": 409,
    "failed": 500,
    "unavailable": 503,
}
"""HTTP status of each error code of an operation."""


class OperationFailed(DoraError):
    """An operation cannot be carried out; ``code`` is that of the error body."""

    def __init__(self, code: ErrorCode, message: str, ended: EndedDataflow | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.ended = ended
        """Results of the nodes of a dataflow that could not be started."""
