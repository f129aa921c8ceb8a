"""The command of a roll-out: what it knows, and how it fails."""

from __future__ import annotations

import anyio
import pytest

from dora_config.protocol.fleet import Checked, CheckMachine
from dora_coordinator.queries.checks import check
from dora_coordinator.state.commands import RequestRefused


def run(command: str, **fields: object) -> Checked:
    request = CheckMachine(command=command, machine="rover-1").model_copy(update=fields)
    return anyio.run(check, request)


def test_it_gets_the_machine_and_what_was_changed_there() -> None:
    of_apply = '[ "$DORA_MACHINE $DORA_DATAFLOW $DORA_GENERATION" = "rover-1 drive@rover-1 7" ]'
    assert run(of_apply, dataflow="drive@rover-1", generation=7) == Checked()
    of_upgrade = '[ "$DORA_MACHINE $DORA_VERSION" = "rover-1 0.2.0" ] && [ -z "$DORA_GENERATION" ]'
    assert run(of_upgrade, version="0.2.0") == Checked()


def test_a_failure_has_the_last_line_of_its_output() -> None:
    with pytest.raises(RequestRefused, match=r"^check: exit code 3: too hot$"):
        run("echo warm; echo too hot >&2; echo; exit 3")
    with pytest.raises(RequestRefused, match="exit code 1: no output"):
        run("false")


def test_a_dry_run_runs_nothing() -> None:
    assert run("false", dry_run=True) == Checked()
