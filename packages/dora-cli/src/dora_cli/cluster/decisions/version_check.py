"""Whether machines can switch to another version of dora, before anything is changed; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dora_cli.bundle import formats
from dora_cli.bundle.formats import Formats
from dora_cli.cluster.decisions.rollback_plan import Versions


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The version to which a machine switches."""

    version: str
    formats: Formats


@dataclass(frozen=True, slots=True)
class Checked:
    """``problems`` prevent the switch; ``remarks`` say what it does not allow later."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def check_switch(
    machines: Mapping[str, Versions],
    targets: Mapping[str, NewVersion],
    dataflows: Mapping[str, Sequence[str]],
    linked: Mapping[str, Sequence[str]],
    coordinator: Formats,
) -> Checked:
    """``dataflows``: names of those that run, by machine; ``linked``: of those that exchange
    messages with other machines; ``coordinator``: of the one that the daemons connect to.
    """
    problems: list[str] = []
    remarks: list[str] = []
    for name, target in targets.items():
        problems += _problems(name, machines[name], target, dataflows.get(name, ()), coordinator)
        remarks += _remarks(name, machines[name], target, linked.get(name, ()))
    return Checked(tuple(problems), tuple(remarks))


def _problems(
    name: str, there: Versions, target: NewVersion, running: Sequence[str], coordinator: Formats
) -> Iterator[str]:
    version, new, now = target.version, target.formats, there.formats.get(there.now, {})
    found = formats.unreadable(new, now, formats.RECORDS)
    found = found or formats.unreadable(new, now, formats.DATAFLOWS)
    if found is not None:
        yield (
            f"{name}: dora {version} cannot read what dora {there.now} has written there "
            f"({found}); stop its dataflows, run `dora cluster uninstall`, and then `install` "
            f"from an installation of dora {version}"
        )
    found = formats.differs(new, coordinator, formats.CONTROL_PLANE)
    found = found or formats.unreadable(new, coordinator, formats.DATAFLOWS)
    if found is not None:
        yield (
            f"{name}: the daemon of dora {version} could not connect to the coordinator ({found}); "
            "switch to a version in between first"
        )
    if not running:
        return
    for used in there.in_use:
        found = formats.differs(new, there.formats.get(used, {}), formats.RUNNER)
        if found is not None:
            yield (
                f"{name}: the daemon of dora {version} could not control the nodes that dora "
                f"{used} runs there ({found}); run {_commands('stop', running)} before, and start "
                "them again afterwards"
            )


def _remarks(
    name: str, there: Versions, target: NewVersion, running: Sequence[str]
) -> Iterator[str]:
    for used in there.in_use if running else ():
        found = formats.differs(target.formats, there.formats.get(used, {}), formats.LINK)
        if found is not None:
            yield (
                f"{name}: if its nodes are started again (a reboot), they cannot exchange messages "
                f"with those that dora {used} runs on other machines ({found}); run "
                f"{_commands('restart', running)} after this command"
            )


def _commands(command: str, dataflows: Sequence[str]) -> str:
    return ", ".join(f"`dora {command} {one}`" for one in dataflows)
