"""Collects the files of nodes from their entries in the dataflow file, and sends them.

A Python file includes its whole folder, which has its imports and data; another program only
itself. Also included: each word of `args`, `build` and values of `env` that is the path of a file
or folder below the folder of the dataflow file, and that whole folder if a build command is not a
Python package installer. Files that the defaults or a `.doraignore` exclude are not sent, unless
the entry names them. Its syntax is that of `.gitignore`: later lines override earlier ones, a file
in a subfolder overrides those above it, and ``!pattern`` includes files that a default excludes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from pathspec import GitIgnoreSpec
from pydantic import ValidationError

from dora_cli import output
from dora_config.access import Endpoint
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.disk_space import SPARE_BYTES, DiskFull
from dora_config.errors import DoraError
from dora_config.protocol.code import MAX_FILES, CodeFile, CodeLink, CodeSet
from dora_config.protocol.dataflow import DataflowSpec, PlanDataflow
from dora_config.transfers import Source, UploadFailed, Uploads, source_size
from dora_config.yaml.quantities import show_size

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient

MAX_NAMES = 6
"""Most files that one note lists."""


MAX_BYTES: Final = 4 << 30
"""Limit in bytes for the files of one node; more is usually a mistake."""
_INSTALLERS: Final = ("pip", "pip3", "uv")
_SPECIAL_FILES: Final = (
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)

OWN_WHEEL: Final = "dora_config"
IGNORE_FILE: Final = ".doraignore"
DEFAULTS: Final = (
    *(".git", ".hg/", ".svn/", ".jj/"),
    *(".venv/", "node_modules/", "__pycache__/", "*.py[co]", "*.egg-info/", ".eggs/"),
    *(".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".ipynb_checkpoints/"),
    *(".tox/", ".nox/", ".cache/", ".ccache/", ".direnv/", ".idea/", ".vscode/"),
    *(".#*", "*.swp", "*.swo", "*~", r"\#*\#", ".DS_Store", ".nfs*"),
    *(".dora/", ".dora-session.yaml", "*.dora-session.yaml", IGNORE_FILE),
    *("/out/", "/git/", "/_work/"),
)
"""Version control, environments, caches, editor files, files of dora."""


class InvalidIgnoreFile(DoraError):
    """A `.doraignore` file is malformed or unreadable."""


class IgnoreRules:
    """Rules for the files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._defaults = GitIgnoreSpec.from_lines(DEFAULTS)
        self._read: dict[PurePosixPath, GitIgnoreSpec | None] = {}
        self._included: set[PurePosixPath] = set()

    def include(self, folder: PurePosixPath) -> None:
        """Include a folder that the node names; patterns above it no longer apply."""
        if self.by_default(folder, is_folder=True) or self.by_user(folder, is_folder=True):
            self._included.add(folder)

    def by_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether a default excludes ``path`` and no `.doraignore` overrides it."""
        chosen = self._chosen(path, is_folder=is_folder)
        return chosen is None and self._is_default(path, is_folder=is_folder)

    def by_user(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether a `.doraignore` excludes ``path``."""
        return self._chosen(path, is_folder=is_folder) is True

    def _is_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        top = self._top(path)
        if path != top and self._defaults.match_file(_shown(path, top, is_folder=is_folder)):
            return True
        return is_folder and _is_installation(self._root / path)

    def _chosen(self, path: PurePosixPath, *, is_folder: bool) -> bool | None:
        """Return the decision of the innermost `.doraignore` that matches ``path``."""
        top = self._top(path)
        for folder in path.parents:
            spec = self._spec(folder)
            if spec is not None:
                verdict = spec.check_file(_shown(path, folder, is_folder=is_folder)).include
                if verdict is not None:
                    return verdict
            if folder == top:
                break
        return None

    def _top(self, path: PurePosixPath) -> PurePosixPath:
        """Return the outermost folder whose patterns apply to ``path``."""
        named = (folder for folder in path.parents if folder in self._included)
        return next(named, PurePosixPath())

    def _spec(self, folder: PurePosixPath) -> GitIgnoreSpec | None:
        if folder not in self._read:
            self._read[folder] = _read(self._root / folder / IGNORE_FILE)
        return self._read[folder]


def _is_installation(folder: Path) -> bool:
    """Return whether a folder is a Python environment, or has the wheels of `dora self wheels`."""
    is_environment = (folder / "pyvenv.cfg").is_file()
    return is_environment or next(folder.glob(f"{OWN_WHEEL}-*.whl"), None) is not None


def _shown(path: PurePosixPath, folder: PurePosixPath, *, is_folder: bool) -> str:
    """Return ``path`` relative to ``folder``, as patterns match it."""
    return f"{path.relative_to(folder)}{'/' if is_folder else ''}"


def _read(path: Path) -> GitIgnoreSpec | None:
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidIgnoreFile(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            raise InvalidIgnoreFile(
                f"{path}:{number}: invalid pattern {line!r}; the syntax is that of .gitignore"
            ) from error
    return GitIgnoreSpec.from_lines(lines)


class CollectionError(DoraError):
    """The files of a node cannot be sent."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Files of a node and the local path of each content, by SHA-256."""

    code: CodeSet
    sources: dict[str, Path]
    left_out: tuple[str, ...] = ()
    """Files and folders that the default rules exclude; special files with their kind."""


def all_sources(parts: Iterable[Collected]) -> dict[str, Source]:
    """Return the contents that these nodes need by SHA-256, with their file lists."""
    sources: dict[str, Source] = {}
    for one in parts:
        sources |= one.sources
        sources[one.code.digest()] = one.code.text()
    return sources


def collect(node: ResolvedNode, folder: Path) -> Collected:
    """Return the files of a node of the dataflow file in ``folder``; raises CollectionError."""
    root = source_directory(node, folder)
    collector = _Collector(root, IgnoreRules(root))
    try:
        for name in node.programs:
            whole_folder = bool(node.operators) or name.endswith(".py")
            collector.add_program(name, whole_folder=whole_folder, may_be_built=bool(node.build))
        for name in _words(node, root):
            collector.add_named(PurePosixPath(name))
        if any(line.split()[:1] and line.split()[0] not in _INSTALLERS for line in node.build):
            collector.add(PurePosixPath())
    except InvalidIgnoreFile as error:
        raise CollectionError(str(error)) from error
    return collector.result()


def source_directory(node: ResolvedNode, folder: Path) -> Path:
    """Return the base of relative paths of a node: `working_dir` if it exists here."""
    wanted = node.deploy.working_dir
    if wanted and not Path(wanted).is_absolute() and (folder / wanted).is_dir():
        return folder / wanted
    return folder


def _words(node: ResolvedNode, root: Path) -> Iterator[str]:
    """Yield the words that are paths below ``root``."""
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


def _is_own_output(path: Path) -> bool:
    """Return whether standard output or error of this command writes to the file."""
    return any(_is_open_as(descriptor, path) for descriptor in (1, 2))


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


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
            return  # a file of the target machine
        if ".." in path.parts:
            raise CollectionError(
                f"`{name}` is outside of {self.root}, and only files below that folder are sent; "
                "move it there, or use `distribute: local`"
            )
        if not (self.root / path).is_file():
            if may_be_built or "/" not in name:
                return  # built there, or on the PATH of the target machine
            raise CollectionError(
                f"could not find source path `{name}`: {self.root / path} does not exist"
            )
        self.add(path)
        if whole_folder:
            self.add_named(path.parent)

    def add_named(self, path: PurePosixPath) -> None:
        """Add a path that the entry names, even if a pattern excludes it."""
        if path.parts:
            self.rules.include(path)
        self.add(path)

    def add(self, path: PurePosixPath) -> None:
        """Add a file, a folder with its content, or a link with its target."""
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
            if not is_folder and _is_own_output(where):
                self.left_out.add(f"{inner} (output of this command)")
            elif self.rules.by_default(inner, is_folder=is_folder):
                self.left_out.add(f"{_printable(str(inner))}{'/' if is_folder else ''}")
            elif not self.rules.by_user(inner, is_folder=is_folder):
                self.add(inner)

    def _require_utf8(self, path: PurePosixPath) -> None:
        """Raise CollectionError for a name that is not valid UTF-8."""
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise CollectionError(
                f"{_printable(str(self.root / path))}: the file name is not valid UTF-8; rename "
                f"it, or exclude it in {IGNORE_FILE}"
            ) from None

    def _skip_special(self, path: PurePosixPath, here: Path) -> None:
        try:
            mode = here.lstat().st_mode
        except OSError as error:
            raise CollectionError(f"{here}: {error.strerror}") from error
        kind = next((name for is_kind, name in _SPECIAL_FILES if is_kind(mode)), "special file")
        self.left_out.add(f"{path} ({kind})")

    def _add_link(self, path: PurePosixPath) -> PurePosixPath:
        """Add a link; return its target relative to the root."""
        here = self.root / path
        target = os.readlink(here)
        joined = os.path.normpath(here.parent / target)
        base = os.path.normpath(self.root)
        real = os.path.realpath(here)
        if os.path.realpath(joined) != real:  # a `..` in the target follows another link
            joined = os.path.normpath(self.root / os.path.relpath(real, os.path.realpath(base)))
        if not (joined == base or joined.startswith(f"{base}/")):
            raise CollectionError(
                f"{here} is a link to {_printable(target)}, outside of {self.root}; only files "
                f"below that folder are sent: copy the file there, or exclude it in {IGNORE_FILE}"
            )
        end = PurePosixPath(os.path.relpath(joined, base))
        if not os.path.lexists(joined):
            raise CollectionError(
                f"{here} is a link to {_printable(target)}, which does not exist; remove it, or "
                f"exclude it in {IGNORE_FILE}"
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
            raise CollectionError(self._limit_exceeded())

    def _limit_exceeded(self) -> str:
        by_top: dict[str, int] = {}
        for file in self.files.values():
            top = file.path.partition("/")[0]
            by_top[top] = by_top.get(top, 0) + file.size
        largest = sorted(by_top.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"{name} ({size >> 20} MiB)" for name, size in largest)
        return (
            f"more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files would be sent from {self.root}: "
            f"{listed}, ...; exclude what the node does not need in {IGNORE_FILE}, or move the "
            "node into its own folder"
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
    """Return ``text`` with invalid UTF-8 bytes as escapes."""
    return os.fsencode(text).decode(errors="backslashreplace")


def upload(endpoint: Endpoint, parts: Iterable[Collected]) -> None:
    """Upload the missing files of nodes; raises UploadFailed."""
    sources = all_sources(parts)
    with Uploads(endpoint) as uploads:
        missing, room = uploads.missing(sorted(sources))
        sizes = {digest: source_size(sources[digest]) for digest in missing}
        total = sum(sizes.values())
        if room is not None and total > room.free - SPARE_BYTES:
            problem = DiskFull(f"{room.place} on the coordinator's machine", room.free, total)
            raise UploadFailed(
                f"not enough space for the code on the coordinator at {endpoint}: {problem}"
            )
        if missing:
            output.remark(f"sending {len(missing)} files, {show_size(total)}, to the coordinator")
        for digest in missing:
            uploads.send(digest, sources[digest])


def send(client: CoordinatorClient, spec: DataflowSpec) -> DataflowSpec:
    """Send the files that are missing on the machines; return the spec with their digests.

    Raises CollectionError with all nodes that cannot be sent, and RequestFailed if a start would be
    refused, before anything is sent.
    """
    by_node = collect_all(spec)
    if not by_node:
        return spec
    _note_left_out(by_node.values())
    sent = with_code(spec, by_node)
    client.request(PlanDataflow(spec=sent))
    upload(client.endpoint, by_node.values())
    return sent


def with_code(spec: DataflowSpec, collected: Mapping[str, Collected]) -> DataflowSpec:
    """Return a specification with the digests of these nodes, which are not built yet."""
    digests = {node: one.code.digest() for node, one in collected.items()}
    built_on = {node: daemon for node, daemon in spec.built_on.items() if node not in digests}
    return spec.model_copy(update={"code": digests, "built_on": built_on})


def collect_all(spec: DataflowSpec) -> dict[str, Collected]:
    """Return the files of nodes with `distribute: http` or `scp`; raises CollectionError."""
    folder = Path(spec.origin.directory)
    found: dict[str, Collected] = {}
    problems: list[str] = []
    for node in spec.resolved.nodes:
        if node.deploy.distribute == "local" or not _has_files(node):
            continue
        try:
            one = collect(node, folder)
        except CollectionError as problem:
            problems.append(f'node "{node.id}": {problem}')
            continue
        if one.code.files:
            found[node.id] = one
        else:
            output.remark(
                f'note: node "{node.id}" has `distribute: {node.deploy.distribute}`, but names no '
                f"file below {folder}; its program must already be on its machine"
            )
    if problems:
        raise CollectionError("\n".join(problems))
    return found


def _note_left_out(collected: Iterable[Collected]) -> None:
    names = sorted({name for one in collected for name in one.left_out})
    if names:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        output.remark(f"note: not sent: {', '.join(names[:MAX_NAMES])}{more} (see {IGNORE_FILE})")


def _has_files(node: ResolvedNode) -> bool:
    return node.git is None and node.kind in ("standard", "runtime", "shell")
