"""Log methods of all kinds of nodes, one for each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LogMethods:
    """`log_error` to `log_trace`, based on `log`."""

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        raise NotImplementedError

    def log_error(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level error."""
        self.log("error", message, target, fields)

    def log_warn(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level warn."""
        self.log("warn", message, target, fields)

    def log_info(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level info."""
        self.log("info", message, target, fields)

    def log_debug(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level debug."""
        self.log("debug", message, target, fields)

    def log_trace(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level trace."""
        self.log("trace", message, target, fields)
