"""Which files a node consists of, from what its description names; reads files, sends none.

A Python file brings its whole folder (what it imports and reads lies there), any other program
itself. Further: every word of `args`, `build` and the values of `env` that names a file or folder
below the folder of the dataflow file; and all of that folder when a build line is anything but an
installer of Python packages. Of a folder, what `ignore_rules` leaves out is not
sent; a file that the description names is sent in any case.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from dora_cli.shipping.ignore_rules import IGNORE_FILE, IgnoreRules, InvalidIgnoreFile
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import DoraError
from dora_config.protocol.code import MAX_FILES, CodeFile, CodeLink, CodeSet

MAX_BYTES: Final = 4 << 30
"""Of one node; more is a mistake more often than not."""
_INSTALLERS: Final = ("pip", "pip3", "uv")
_SPECIAL_FILES: Final = (
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


class CollectionError(DoraError):
    """The files of a node cannot be sent; ``str()`` says which and why."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The list of a node's files, and where each content lies here."""

    code: CodeSet
    sources: dict[str, Path]
    left_out: tuple[str, ...] = ()
    """What a default leaves out of the folders that are sent, with its kind where that is not clear
    from its name.
    """


def all_sources(parts: Iterable[Collected]) -> dict[str, Path | bytes]:
    """Every content that these nodes need, their lists of files included, by its SHA-256."""
    sources: dict[str, Path | bytes] = {}
    for one in parts:
        sources |= one.sources
        sources[one.code.digest()] = one.code.text()
    return sources


def collect(node: ResolvedNode, folder: Path) -> Collected:
    """All files of a node whose dataflow file lies in ``folder``; raises CollectionError."""
    root = source_directory(node, folder)
    collector = _Collector(root, IgnoreRules(root))
    try:
        for name, whole_folder in _programs(node):
            collector.add_program(name, whole_folder=whole_folder, may_be_built=bool(node.build))
        for name in _words(node, root):
            collector.add_named(PurePosixPath(name))
        if any(line.split()[:1] and line.split()[0] not in _INSTALLERS for line in node.build):
            collector.add(PurePosixPath())
    except InvalidIgnoreFile as error:
        raise CollectionError(str(error)) from error
    return collector.result()


def source_directory(node: ResolvedNode, folder: Path) -> Path:
    """Where the node's relative paths start here: `working_dir` is joined if it is there too."""
    wanted = node.deploy.working_dir
    if wanted and not Path(wanted).is_absolute() and (folder / wanted).is_dir():
        return folder / wanted
    return folder


def _programs(node: ResolvedNode) -> Iterator[tuple[str, bool]]:
    """Files that are run, and whether their folder comes with them."""
    if node.kind == "standard" and node.path:
        yield node.path, node.path.endswith(".py")
    for operator in node.operators:
        yield operator.python, True


def _words(node: ResolvedNode, root: Path) -> Iterator[str]:
    """Words that name something below ``root``."""
    texts = [*node.args, *(value for value in node.env.values() if isinstance(value, str))]
    for line in node.build:
        try:
            texts += shlex.split(line)
        except ValueError:
            texts += line.split()
    for text in texts:
        for word in {text, text.rpartition("=")[2]}:
            path = PurePosixPath(word)
            if not word or path.is_absolute() or ".." in path.parts or "\0" in word:
                continue
            if path.parts and (root / path).exists():
                yield word
    if any(word in (".", "./") for line in node.build for word in line.split()):
        yield "."


@dataclass(slots=True)
class _Collector:
    root: Path
    rules: IgnoreRules
    files: dict[str, CodeFile] = field(default_factory=dict)
    links: dict[str, CodeLink] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    size: int = 0
    _seen: set[PurePosixPath] = field(default_factory=set)

    def add_program(self, name: str, *, whole_folder: bool, may_be_built: bool) -> None:
        path = PurePosixPath(os.path.normpath(name))
        if path.is_absolute() or "$" in name:
            return  # a file of the machine
        if ".." in path.parts:
            raise CollectionError(
                f"`{name}` lies outside of {self.root}, the folder that is sent from; move it "
                "below that folder, or use `distribute: local`"
            )
        if not (self.root / path).is_file():
            if may_be_built or "/" not in name:
                return  # made there, or a program on the PATH of the machine
            raise CollectionError(
                f"Could not find source path `{name}`: there is no file at {self.root / path}"
            )
        self.add(path)
        if whole_folder:
            self.add_named(path.parent)

    def add_named(self, path: PurePosixPath) -> None:
        """What the description names: sent even if a pattern leaves it out."""
        if path.parts:
            self.rules.include(path)
        self.add(path)

    def add(self, path: PurePosixPath) -> None:
        """A file, a folder with all that is in it, or a link and what it leads to."""
        if path in self._seen:
            return
        self._seen.add(path)
        self._require_utf8(path)
        for parent in reversed(path.parents):
            if parent.parts and (self.root / parent).is_symlink():
                end = self._add_link(parent)
                self.add(end / path.relative_to(parent))
                return
        here = self.root / path
        if here.is_symlink():
            self.add(self._add_link(path))
        elif here.is_dir():
            self._add_folder(path, here)
        elif here.is_file():
            self._add_file(path, here)
        else:
            self._skip_special(path, here)

    def _add_folder(self, path: PurePosixPath, here: Path) -> None:
        try:
            names = sorted(os.listdir(here))
        except OSError as error:
            raise CollectionError(f"{here}: {error.strerror}") from error
        for name in names:
            inner = path / name
            where = here / name
            is_folder = where.is_dir() and not where.is_symlink()
            if self.rules.by_default(inner, is_folder=is_folder):
                self.left_out.add(f"{_printable(str(inner))}{'/' if is_folder else ''}")
            elif not self.rules.by_user(inner, is_folder=is_folder):
                self.add(inner)

    def _require_utf8(self, path: PurePosixPath) -> None:
        """Raise CollectionError for a name that a list of files cannot hold."""
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise CollectionError(
                f"{_printable(str(self.root / path))}: the file name is not valid UTF-8; rename "
                f"it, or leave it out with a line in {IGNORE_FILE}"
            ) from None

    def _skip_special(self, path: PurePosixPath, here: Path) -> None:
        try:
            mode = here.lstat().st_mode
        except OSError as error:
            raise CollectionError(f"{here}: {error.strerror}") from error
        kind = next((name for is_kind, name in _SPECIAL_FILES if is_kind(mode)), "special file")
        self.left_out.add(f"{path} ({kind})")

    def _add_link(self, path: PurePosixPath) -> PurePosixPath:
        """Keep a link; where it leads to, below the root."""
        here = self.root / path
        target = os.readlink(here)
        joined = os.path.normpath(here.parent / target)
        base = os.path.normpath(self.root)
        if not (joined == base or joined.startswith(f"{base}/")):
            raise CollectionError(
                f"{here} is a link that leads out of {self.root}, to {_printable(target)}; only "
                "what lies below that folder is sent: put a copy there, or leave the link out with "
                f"a line in {IGNORE_FILE}"
            )
        end = PurePosixPath(os.path.relpath(joined, base))
        if not os.path.lexists(joined):
            raise CollectionError(
                f"{here} is a link to {_printable(target)}, which does not exist; remove it, or "
                f"leave it out with a line in {IGNORE_FILE}"
            )
        self._require_utf8(end)
        relative = os.path.relpath(joined, here.parent)
        self.links[str(path)] = CodeLink(path=str(path), target=relative)
        return end

    def _add_file(self, path: PurePosixPath, here: Path) -> None:
        try:
            with here.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                status = os.fstat(file.fileno())
        except OSError as error:
            raise CollectionError(f"{here}: {error.strerror}") from error
        self.size += status.st_size
        self.files[str(path)] = CodeFile(
            path=str(path),
            sha256=digest,
            size=status.st_size,
            executable=bool(status.st_mode & 0o100),
        )
        self.sources[digest] = here
        if self.size > MAX_BYTES or len(self.files) > MAX_FILES:
            raise CollectionError(self._too_much())

    def _too_much(self) -> str:
        by_top: dict[str, int] = {}
        for file in self.files.values():
            top = file.path.partition("/")[0]
            by_top[top] = by_top.get(top, 0) + file.size
        largest = sorted(by_top.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"{name} ({size >> 20} MiB)" for name, size in largest)
        return (
            f"more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files would be sent from {self.root}: "
            f"{listed}, ...; list what the node does not need in {IGNORE_FILE}, or put it into a "
            "folder of its own"
        )

    def result(self) -> Collected:
        try:
            code = CodeSet(
                files=tuple(self.files[path] for path in sorted(self.files)),
                links=tuple(self.links[path] for path in sorted(self.links)),
            )
        except ValidationError as error:
            raise CollectionError(str(error.errors(include_url=False)[0]["msg"])) from error
        return Collected(code, self.sources, tuple(sorted(self.left_out)))


def _printable(text: str) -> str:
    """``text`` with bytes that are not UTF-8 as escapes."""
    return os.fsencode(text).decode(errors="backslashreplace")
