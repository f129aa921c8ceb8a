"""Errors of commands that use a coordinator.

- `CoordinatorUnavailable`: it gives no answer; one of
  - `CoordinatorUnreachable`: no coordinator answers at the address
  - `CoordinatorBusy`: it accepts no connection now, for a reason that passes
  - `CoordinatorLost`: it refused the connection, or the connection ended before the answer
- `AccessDenied`: it rejects the token
- `RequestFailed`: it refused the request, or could not carry it out
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dora_config.errors import DoraError
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.access import Endpoint
    from dora_config.protocol.control import EndedDataflow

MAX_REASON = 200
"""Characters of an HTTP answer that are printed."""


class CoordinatorUnavailable(DoraError):
    """The coordinator gives no answer."""


class CoordinatorUnreachable(CoordinatorUnavailable):
    """No coordinator answers at the address: commands may do without one, or start one.

    ``remedy``: what to do, appended to the message.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem

    def of_file(self, file: Path) -> CoordinatorUnreachable:
        """Return the error for a command that uses the coordinator of a cluster file."""
        command = f"dora cluster up {shlex.quote(str(file))}"
        return CoordinatorUnreachable(
            self.problem, f"start it and the daemons of the file with `{command}`"
        )


class CoordinatorBusy(CoordinatorUnavailable):
    """The coordinator runs and accepts no connection now; a later attempt can succeed."""


class CoordinatorLost(CoordinatorUnavailable):
    """The coordinator refused the connection, or it ended before the answer."""


class CoordinatorRefused(CoordinatorLost):
    """The coordinator refused the connection, and would refuse a later one."""


class AccessDenied(DoraError):
    """The coordinator rejects the token of this account."""


class RequestFailed(DoraError):
    """The coordinator refused a request; `code` is the kind of reason."""

    def __init__(self, message: str, code: str, ended: EndedDataflow | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.ended = ended
        """Known results of the nodes, for a start that failed on a daemon."""


def unreachable(endpoint: Endpoint, error: Exception) -> CoordinatorUnreachable:
    """Return the error for a connection that failed."""
    from dora_config.control_plane import is_this_machine

    problem = f"cannot connect to the coordinator at {endpoint} ({error})"
    if not is_this_machine(endpoint.host):
        remedy = "check that it runs there, or name another with --coordinator-addr"
        return CoordinatorUnreachable(problem, remedy)
    from dora_daemon.process_tree.daemon_entry import connected_daemons

    others = {one.coordinator for one in connected_daemons()} - {str(endpoint)}
    if others:
        named = " or ".join(f"--coordinator-addr {one}" for one in sorted(others))
        remedy = f"the daemon of this machine has another one: use {named}"
    else:
        start = "dora up" if sys.platform == "linux" else "dora coordinator"
        remedy = (
            f"start one on this machine with `{start}`, or name another with --coordinator-addr"
        )
    return CoordinatorUnreachable(problem, remedy)


def refused(endpoint: Endpoint, status: int, media_type: str, body: str) -> DoraError:
    """Return the error for an HTTP status that no operation returns.

    A media type that the coordinator does not use is that of another program.
    """
    if media_type not in (paths.JSON_TYPE, "text/plain"):
        return CoordinatorUnreachable(f"no coordinator listens at {endpoint}: HTTP status {status}")
    reason = next(iter(body.strip().splitlines()), "")[:MAX_REASON].rstrip()
    if status in (401, 426):
        problem = (
            "has a different token than this account"
            if endpoint.token and status == 401
            else "requires a token, and this account has none"
        )
        return AccessDenied(
            f"the coordinator at {endpoint} {problem}: copy ~/.config/dora/token of the "
            "coordinator's account to this one (mode 0600), or set DORA_AUTH_TOKEN"
        )
    if status in (429, 503):
        return CoordinatorBusy(
            f"the coordinator at {endpoint} accepts no connection now "
            f"({reason or f'HTTP status {status}'}): try again in a minute"
        )
    if status in (403, 500):  # other programs: 404, and 502 or 504 of proxies
        problem = f"the coordinator at {endpoint} answered with HTTP status {status}"
        return CoordinatorRefused(f"{problem}: {reason}" if reason else problem)
    return CoordinatorUnreachable(
        f"no coordinator listens at {endpoint}: HTTP status {status} {reason}".rstrip()
    )


def unanswered(endpoint: Endpoint, seconds: float) -> CoordinatorLost:
    """Return the error for a coordinator that is connected and does not answer."""
    return CoordinatorLost(f"the coordinator at {endpoint} did not answer within {seconds:g} s")


def unexpected(endpoint: Endpoint, error: Exception) -> CoordinatorLost:
    """Return the error for an answer that is not valid."""
    return CoordinatorLost(f"unexpected answer of the coordinator at {endpoint}: {error!r}")


def lost(endpoint: Endpoint) -> CoordinatorLost:
    """Return the error for a connection that ended too early."""
    return CoordinatorLost(
        f"lost the connection to the coordinator at {endpoint} (`dora status` shows whether it"
        " runs)"
    )
