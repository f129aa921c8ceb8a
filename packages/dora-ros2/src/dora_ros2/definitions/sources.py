"""Where definitions come from: folders, an installed ROS, wheels of ROS packages, this package."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dora_ros2.definitions import idl, msg
from dora_ros2.definitions.description import (
    Structure,
    TypeDescription,
    check_name,
    describe,
    full_name,
)
from dora_ros2.errors import DefinitionError

SHIPPED = Path(__file__).parent.parent / "interfaces"
"""Definitions of common interfaces that this package brings."""

_IMPLICIT = re.compile(
    r"_(Request|Response|Event|Goal|Result|Feedback|FeedbackMessage"
    r"|(SendGoal|GetResult)(_(Request|Response|Event))?)$"
)
_SECTION = re.compile(r"^={80}\n(MSG|SRV|ACTION|IDL): (\S+)\n", re.MULTILINE)
_MODULE = re.compile(r"^\s*module\s+\w+\s*\{", re.MULTILINE)


class Definitions:
    """Structures by name; files are read when they are needed, the first one found counts."""

    def __init__(self, folders: Iterable[Path | str] = ()) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._shares = [
            *(Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if entry),
            Path(sys.prefix),
        ]
        self._known: dict[str, Structure] = {}

    def describe(self, name: str) -> TypeDescription:
        return describe(name, self.structure)

    def describe_schema(self, name: str, text: str) -> TypeDescription:
        """Return a type by the schema in a recording, of encoding `ros2msg` or `ros2idl`.

        ``text`` is the definition of ``name`` and, in sections, those to which it refers; what it
        lacks is looked up as usual.
        """
        first, *rest = _SECTION.split(text.replace("\r\n", "\n"))
        sections = list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))
        is_idl = bool(_MODULE.search(first))
        owner = name if name.split("/")[1] == "msg" else _IMPLICIT.sub("", name)
        is_whole = bool(first.strip()) or not sections
        is_flat = owner != name and is_whole and not is_idl and not msg.SEPARATOR.search(first)
        if is_whole:
            sections.insert(0, ("IDL" if is_idl else "MSG", name if is_flat else owner, first))
        # A flat text has the parts of a service or action as messages: `MSG: pkg/Add_Request`.
        package, folder, last = owner.split("/")
        own, flat = f"{package}/{folder}/{last}_", f"{package}/msg/{last}_"
        found: dict[str, Structure] = {}
        for kind, described, body in sections:
            parse = idl.parse if kind == "IDL" else msg.parse
            full = full_name(described, kind.lower())
            if is_flat:
                full, body = full.replace(own, flat), body.replace(own, flat)
            for one in parse(full, body, file=f"schema of {name}"):
                whole = _renamed(one, flat, own) if is_flat else one
                found.setdefault(whole.name, whole)
        return describe(name, lambda wanted: found.get(wanted) or self.structure(wanted))

    def structure(self, name: str) -> Structure:
        """Return a structure by its full name; of services and actions also the implicit ones."""
        if name not in self._known:
            owner = check_name(name)
            if owner.split("/")[1] != "msg":
                owner = _IMPLICIT.sub("", owner)
            self._read(owner)
        found = self._known.get(name)
        if found is None:
            raise self._not_found(name)
        return found

    def _read(self, name: str) -> None:
        _, kind, last = name.split("/")
        for folder in self._places(name):
            for suffix, parse in ((f".{kind}", msg.parse), (".idl", idl.parse)):
                path = folder / f"{last}{suffix}"
                try:
                    text = path.read_text(encoding="utf-8")
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (OSError, UnicodeDecodeError) as error:
                    raise DefinitionError(f"cannot be read: {error}", file=path) from error
                for one in parse(name, text, file=str(path)):
                    self._known.setdefault(one.name, one)
                return

    def _places(self, name: str) -> Iterator[Path]:
        """Yield the folders that may contain the file of ``name``."""
        package, kind, _ = name.split("/")
        for folder in self._folders:
            yield folder / package / kind
            yield folder / "share" / package / kind
            if _package_of(folder) == package:
                yield folder / kind
        for prefix in self._shares:
            yield prefix / "share" / package / kind
        yield SHIPPED / package / kind
        # a folder `msg` beside a dataflow that is not in a ROS package
        for folder in self._folders:
            if _package_of(folder) is None:
                yield folder / kind

    def _not_found(self, name: str) -> DefinitionError:
        package, kind, last = name.split("/")
        names = {
            path.stem
            for folder in self._places(name)
            if folder.is_dir()
            for path in folder.iterdir()
            if path.suffix in (f".{kind}", ".idl")
        }
        similar = difflib.get_close_matches(last, sorted(names), n=1)
        if similar:
            remedy = f'did you mean "{package}/{kind}/{similar[0]}"?'
        else:
            wheel = f"ros-{package.replace('_', '-')}"
            remedy = (
                f"put {package}/{kind}/{last}.{kind} into a folder of definitions, "
                f"source a ROS installation that has it, or install the wheel {wheel} if it exists"
            )
        return DefinitionError(f'found no definition of "{name}"', remedy=remedy)


def _renamed(one: Structure, old: str, new: str) -> Structure:
    """Return a structure with another beginning of its name and of those to which it refers."""
    fields = tuple(
        replace(field, type=replace(field.type, nested=field.type.nested.replace(old, new)))
        for field in one.fields
    )
    return replace(one, name=one.name.replace(old, new), fields=fields)


def _package_of(folder: Path) -> str | None:
    """Return the name in the ``package.xml`` of a folder; None without this file."""
    try:
        text = (folder / "package.xml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"<name>\s*([\w-]+)\s*</name>", text)
    return match[1] if match else None
