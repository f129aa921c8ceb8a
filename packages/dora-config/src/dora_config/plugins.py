"""Plug-ins: additions of other installed wheels to dora, by entry points of their metadata.

A wheel states the version of this interface that it was written for, and what it adds:

    [project.entry-points."dora.interface"]
    1 = "dora_hello"

    [project.entry-points."dora.commands"]
    hello = "dora_hello.command:hello"

Metadata takes 10 ms to read: it is read for names that the core lacks, and for lists of names.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from dora_config.errors import DoraError
from dora_config.installation import extra_command, uninstall_command, wheel_command

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

INTERFACE = "1"
"""Version of the interface; a plug-in that states another one is refused."""

Group = Literal[
    "dora.commands",
    "dora.exports",
    "dora.imports",
    "dora.node_kinds",
    "dora.node_api",
    "dora.node_packages",
    "dora.nodes",
    "dora.node_arguments",
    "dora.pages",
    "dora.side_programs",
    "dora.checks",
    "dora.cluster_files",
    "dora.templates",
    "dora.replay_checks",
]
"""Groups of entry points; ARCHITECTURE.md lists their values."""
GROUPS: tuple[Group, ...] = get_args(Group)
FIXED: frozenset[Group] = frozenset(
    {
        "dora.cluster_files",
        "dora.node_packages",
        "dora.pages",
        "dora.replay_checks",
        "dora.side_programs",
    }
)
"""Groups of which dora reads only the names of its own plug-ins."""
INTERFACE_GROUP = "dora.interface"

_WORDS: Mapping[Group, str] = {
    "dora.commands": "command `dora {}`",
    "dora.exports": "format `--to {}`",
    "dora.imports": "format `--from {}`",
    "dora.node_kinds": "kind of nodes `{}:`",
    "dora.node_api": "class `dora.{}`",
    "dora.node_packages": "package `{}` of nodes",
    "dora.nodes": "node `{}`",
    "dora.node_arguments": "check of the arguments of the node `{}`",
    "dora.checks": "check `{}` of `dora doctor`",
    "dora.cluster_files": "{} of a cluster file by `dora doctor`",
    "dora.replay_checks": "`dora replay --{}`",
    "dora.side_programs": "program `{}` beside a dataflow",
    "dora.templates": "project `dora new --kind {}`",
    "dora.pages": "page of `dora ui` and `dora graph`",
}


_READERS: Mapping[Group, str] = {
    "dora.exports": "recording",
    "dora.imports": "recording",
    "dora.replay_checks": "replay",
}
"""Commands of plug-ins that read a group; no other command of a plug-in reads it."""


@dataclass(frozen=True, slots=True)
class Addition:
    """One entry point of an installed wheel."""

    group: Group
    name: str
    value: str
    """`MODULE` or `MODULE:OBJECT`."""
    wheel: str
    version: str = ""
    folder: str = ""
    """Folder of a wheel whose metadata is damaged."""

    @property
    def by(self) -> str:
        """Return the wheel with its version."""
        return f"{self.wheel} {self.version}".rstrip()

    def load(self) -> Any:
        """Import the object. Raises PluginError."""
        module, _, names = self.value.partition(":")
        with self.blamed(f"be imported from {module}"), redirect_stdout(sys.stderr):
            found: Any = import_module(module)
            for name in filter(None, names.split(".")):
                found = getattr(found, name)
        return found

    def use(self, build: Callable[[Any], T]) -> T:
        """Import the object, and return what is built from it. Raises PluginError."""
        found = self.load()
        with self.blamed("be used"):
            return build(found)

    @contextmanager
    def blamed(self, action: str) -> Iterator[None]:
        """Convert errors of the plug-in to PluginError; `action` completes "it cannot ..."."""
        try:
            yield
        except (Exception, SystemExit) as error:  # the code of a plug-in may raise anything
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PluginError(
                f"the {what(self.group, self.name)} of the plug-in {self.by} cannot {action}"
                f" ({reason}); repair or remove it: {uninstall_command(self.wheel)}"
            ) from error


class PluginError(DoraError):
    """A plug-in is not installed, of another version, broken, or one of two with the same name."""


def what(group: Group, name: str) -> str:
    """Return the description of an addition for messages."""
    return _WORDS[group].format(name)


class Plugins:
    """Additions of all plug-ins, and the reasons of refused ones."""

    def __init__(
        self,
        additions: Iterable[Addition],
        interfaces: Mapping[str, Sequence[str]],
        problems: Iterable[str] = (),
    ) -> None:
        """`interfaces` has the versions of the interface that each wheel states."""
        self._usable: dict[tuple[Group, str], Addition] = {}
        self._refused: dict[tuple[Group, str], str] = {}
        self._ignored: list[str] = [*problems]
        found: dict[tuple[Group, str], list[Addition]] = defaultdict(list)
        for one in sorted(additions, key=lambda one: (one.group, one.name, one.wheel)):
            refusal = _refusal(one, interfaces.get(one.wheel, ()))
            if refusal is not None:
                self._refused[one.group, one.name] = refusal
            elif one.group in FIXED and one.name not in known_names(one.group):
                self._ignored.append(_unread(one.group, one.by, known_names(one.group), one.name))
            elif known_names(one.group).get(one.name, one.wheel) != one.wheel:
                self._ignored.append(ignored(one))
            else:
                found[one.group, one.name].append(one)
        for key, several in found.items():
            if len(several) == 1:
                self._usable[key] = several[0]
                continue
            wheels = " and ".join(one.by for one in several)
            others = " or ".join(one.wheel for one in several[1:])
            self._refused[key] = (
                f"the {what(*key)} is in several plug-ins, {wheels}; remove all but one, for"
                f" example: {uninstall_command(several[0].wheel)} (or {others})"
            )

    def find(self, group: Group, name: str) -> Addition | None:
        """Return an addition, None if it is not installed. Raises PluginError if it is refused."""
        key = group, name
        if key in self._refused and key not in self._usable:
            raise PluginError(self._refused[key])
        return self._usable.get(key)

    def additions(self, *groups: Group) -> list[Addition]:
        """Return the additions that are not refused, in the order of groups and names."""
        return [one for one in self._usable.values() if one.group in groups]

    def names(self, group: Group) -> list[str]:
        """Return the names in a group that are not refused."""
        return [addition.name for addition in self.additions(group)]

    def refusals(self) -> list[str]:
        """Return the reason of each refused plug-in as a sentence."""
        return list(dict.fromkeys([*self._refused.values(), *self._ignored]))


def ignored(addition: Addition) -> str:
    """Return the sentence about a plug-in whose name dora itself uses."""
    return (
        f"the {what(addition.group, addition.name)} of the plug-in {addition.by} is ignored,"
        f" because dora has its own; remove it: {uninstall_command(addition.wheel)}"
    )


def _unread(group: str, by: str, read: Iterable[str], name: str = "") -> str:
    """Return the sentence about entry points without a reader."""
    subject = f"the entry point `{name}` of the group `{group}`" if name else f"the group `{group}`"
    kind = "names" if name else "groups"
    return f"{subject} of the plug-in {by} is not read; the {kind} are {', '.join(read)}"


def _refusal(addition: Addition, stated: Sequence[str]) -> str | None:
    if addition.folder:
        return (
            f"the {what(addition.group, addition.name)} ({addition.value}) is of a wheel in"
            f" {addition.folder} whose metadata has no name, as after an interrupted installation;"
            " remove its folder `*.dist-info` there, and install the wheel again"
        )
    if INTERFACE in stated:
        return None
    versions = ", ".join(stated)
    newer = versions.isdecimal() and int(versions) > int(INTERFACE)
    about = f"is for version {versions}" if stated else "states no version"
    if addition.wheel in known_wheels():  # the wheels of this project have one version
        remedy = wheel_command(addition.wheel, "--force-reinstall", "--no-deps")
    elif newer:
        remedy = "update dora, or use an older version of the plug-in"
    else:
        remedy = "update the plug-in, or state the version in its entry points `dora.interface`"
    return (
        f"the plug-in {addition.by} {about} of the interface of plug-ins, and this dora has version"
        f" {INTERFACE}; {remedy}"
    )


@cache
def installed() -> Plugins:
    """Read the plug-ins from the metadata of installed wheels."""
    from importlib import metadata  # slow

    additions: list[Addition] = []
    interfaces: dict[str, list[str]] = defaultdict(list)
    points = metadata.entry_points()
    for point in points.select(group=INTERFACE_GROUP):
        interfaces[_wheel(point)].append(point.name)
    for group in GROUPS:
        for point in points.select(group=group):
            wheel, dist = _wheel(point), point.dist
            version = dist.version if wheel and dist is not None else ""
            folder = "" if wheel or dist is None else str(dist.locate_file(""))
            additions.append(Addition(group, point.name, point.value, wheel, version, folder))
    unread = {
        (group, wheel)
        for group in points.groups
        if group.startswith("dora.") and group not in (*GROUPS, INTERFACE_GROUP)
        for point in points.select(group=group)
        if (wheel := _wheel(point))
    }
    groups = [group for group in GROUPS if group not in FIXED]
    return Plugins(additions, interfaces, [_unread(*one, groups) for one in sorted(unread)])


def _wheel(point: EntryPoint) -> str:
    """Return the name of a wheel; empty if its metadata is damaged."""
    name: str | None = None if point.dist is None else point.dist.metadata["Name"]
    return (name or "").replace("_", "-").lower()


def packages_of_others() -> dict[str, str]:
    """Return the plug-ins of others with their versions, by the package that is imported."""
    found = installed().additions(*GROUPS)
    by_package = {one.value.partition(":")[0].partition(".")[0]: one for one in found}
    ours = known_wheels()
    return {package: one.by for package, one in by_package.items() if one.wheel not in ours}


def load(group: Group, name: str, build: Callable[[Any], Any] | None = None) -> Any:
    """Return a plug-in's object, or what is built from it. Raises PluginError."""
    found = installed().find(group, name)
    if found is None:
        raise PluginError(missing(group, name) or f"no plug-in has the {what(group, name)}")
    return found.load() if build is None else found.use(build)


def missing(group: Group, name: str) -> str | None:
    """Return the command that installs this project's wheel with a name, None for other names."""
    wheel = known_names(group).get(name)
    if wheel is None:
        return None
    return (
        f"the {what(group, name)} is part of the wheel {wheel}, which is not installed for"
        f" {sys.executable}\n  install it: {wheel_command(wheel)}"
    )


def missing_node(name: str) -> str | None:
    """Return the command that installs a node of this project, None for other names."""
    wheel, _, extra = known_names("nodes").get(name, "").removesuffix("]").partition("[")
    return f"install it with: {extra_command(wheel, extra)}" if wheel else None


def known_names(group: Group | Literal["nodes"]) -> Mapping[str, str]:
    """Return the wheel of each name that the plug-ins of this project have."""
    return _known_plugins().get(group, {})


def known_wheels() -> set[str]:
    """Return the wheels of this project that have plug-ins."""
    named = {wheel for names in _known_plugins().values() for wheel in names.values()}
    return {wheel.partition("[")[0] for wheel in named}


@cache
def _known_plugins() -> Mapping[str, Mapping[str, str]]:
    file = Path(__file__).with_name("known_plugins.json")
    found: Mapping[str, Mapping[str, str]] = json.loads(file.read_text())
    return found


def problems(
    core: Mapping[Group, Iterable[str]],
    build: Mapping[Group, Callable[[str, Any], object]] = MappingProxyType({}),
) -> Iterator[str]:
    """Import all additions of plug-ins, and yield their problems.

    `core` has the names that dora itself uses; `build` has functions that use the imported objects
    as dora does.
    """
    plugins = installed()
    yield from plugins.refusals()
    commands = plugins.names("dora.commands")
    for addition in plugins.additions(*GROUPS):
        reader = _READERS.get(addition.group)
        if reader is not None and reader not in commands:
            continue
        if addition.name in core.get(addition.group, ()):
            yield ignored(addition)
            continue
        try:
            if (use := build.get(addition.group)) is None:
                addition.load()
            else:
                addition.use(partial(use, addition.name))
        except PluginError as error:
            yield str(error)
