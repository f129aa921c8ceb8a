"""The wheels of dora in the running installation, read file by file from their RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from dora_config.errors import DoraError
from dora_config.installation import own_wheels, wheel_command, with_needed

CORE: Final = "dora-cli-core"
"""Package with the daemon, the coordinator, and the commands of machines."""
NODES: Final = "dora.nodes"
GROUPS_FOR_MACHINES: Final = ("dora.node_kinds", "dora.side_programs", NODES)
"""Groups of entry points; machines need the plug-ins with one of them."""

_ABOUT_THIS_INSTALLATION: Final = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
"""Files in a dist-info about how a wheel was installed."""


class NotBundled(DoraError):
    """The running installation cannot be sent to machines; ``str()`` gives the reason."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of a package; ``path`` is relative to site-packages."""

    path: PurePosixPath
    content: bytes


@dataclass(frozen=True, slots=True)
class OwnPackages:
    """All packages of one version."""

    version: str
    files: tuple[OwnFile, ...]
    """Files, sorted by path."""

    def nodes(self) -> dict[str, str]:
        """Return the functions of nodes by name (`MODULE:FUNCTION`)."""
        found: dict[str, str] = {}
        for file in self.files:
            if file.path.name == "entry_points.txt" and file.path.parent.suffix == ".dist-info":
                points = ConfigParser(delimiters=("=",))
                points.read_string(file.content.decode())
                found |= points[NODES] if points.has_section(NODES) else {}
        return found

    def digest(self) -> str:
        """Return a hash of all files."""
        found = hashlib.sha256()
        for file in self.files:
            found.update(f"{file.path}\0{len(file.content)}\0".encode() + file.content)
        return found.hexdigest()


def packages_for_machines(folders: Sequence[str] | None = None) -> OwnPackages:
    """Return the packages that machines need: those of `own_packages` without SSH and page."""
    return own_packages(folders, for_machines=True)


def own_packages(
    folders: Sequence[str] | None = None, *, for_machines: bool = False
) -> OwnPackages:
    """Return the installed packages (in ``folders``, default: sys.path), checked against RECORD.

    Raises NotBundled for an editable installation, and for files that were changed by hand.
    """
    files: dict[PurePosixPath, bytes] = {}
    versions: dict[str, str] = {}
    where = list(sys.path if folders is None else folders)
    needed = with_needed(CORE)
    for name in own_wheels():
        found = next(iter(Distribution.discover(name=name, path=where)), None)
        if found is None and name in needed:
            raise NotBundled(
                f"the package {name} is not installed beside this dora, but machines need it: "
                f"{wheel_command(name)}"
            )
        if found is None or (for_machines and name not in needed and not _is_for_machines(found)):
            continue
        _refuse_editable(name, found)
        versions[name] = found.version
        files |= _files_of(name, found)
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise NotBundled(
            f"the packages of dora have several versions ({listed}); install one version"
        )
    ordered = tuple(OwnFile(path, files[path]) for path in sorted(files))
    return OwnPackages(next(iter(versions.values())), ordered)


def _is_for_machines(found: Distribution) -> bool:
    return any(point.group in GROUPS_FOR_MACHINES for point in found.entry_points)


def write_wheels(own: OwnPackages, folder: Path) -> list[Path]:
    """Write each package as a wheel again; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {file.path: file.content for file in own.files}
    written = []
    for record in contents:
        if record.name != "RECORD":
            continue
        target = folder / f"{record.parent.stem}-py3-none-any.whl"
        with ZipFile(target, "w", ZIP_DEFLATED) as wheel:
            for line in contents[record].decode().splitlines():
                path = PurePosixPath(line.rsplit(",", 2)[0])
                wheel.writestr(ZipInfo(str(path)), contents[path], ZIP_DEFLATED)
        written.append(target)
    return written


def _refuse_editable(name: str, found: Distribution) -> None:
    text = found.read_text("direct_url.json")
    origin: Any = json.loads(text) if text else {}
    if origin.get("dir_info", {}).get("editable"):
        raise NotBundled(
            f"{name} is an editable installation of {origin.get('url', 'a folder')}, which cannot "
            "be installed on another machine: build wheels and install those, for example in a "
            "separate environment"
        )


def _files_of(name: str, found: Distribution) -> dict[PurePosixPath, bytes]:
    files: dict[PurePosixPath, bytes] = {}
    record: list[str] = []
    record_path = None
    # Not `found.files`, which leaves out missing files from Python 3.12 on.
    for entry, digest, _ in csv.reader((found.read_text("RECORD") or "").splitlines()):
        path = PurePosixPath(entry)
        in_metadata = path.parent.name.endswith(".dist-info")
        if in_metadata and path.name == "RECORD":
            record_path = path
        if (
            ".." in path.parts  # scripts: a tree has scripts of its own
            or "__pycache__" in path.parts
            or (in_metadata and path.name in ("RECORD", *_ABOUT_THIS_INSTALLATION))
        ):
            continue
        content = _as_installed(name, found, path, digest)
        files[path] = content
        record.append(f"{path},sha256={_record_hash(content)},{len(content)}")
    if record_path is None:
        raise NotBundled(f"{name} was installed without a list of its files (RECORD)")
    files[record_path] = "\n".join([*record, f"{record_path},,", ""]).encode()
    return files


def _as_installed(name: str, found: Distribution, entry: PurePosixPath, digest: str) -> bytes:
    """Return a file as it was installed, or the copy of one of `dora` that dora-rs replaced."""
    path = Path(str(found.locate_file(entry)))
    copy = Path(str(found.locate_file(f"dora_node_api/front/{entry}")))
    problem = None
    for place in (path, copy) if entry.parts[0] == "dora" else (path,):
        try:
            content = place.read_bytes()
        except OSError as error:
            problem = problem or f"cannot be read ({error.strerror})"
            continue
        if digest in ("", f"sha256={_record_hash(content)}"):
            return content
        problem = problem or "was changed"
    remedy = wheel_command(name, "--force-reinstall", "--no-deps")
    raise NotBundled(
        f"{path} {problem} after {name} {found.version} was installed; install it again: {remedy}"
    )


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
