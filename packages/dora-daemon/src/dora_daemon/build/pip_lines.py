"""Build lines of pip, run by `uv pip`; by pip where uv is missing or does not know an option.

uv checks installed packages without a network. It always rebuilds folders that are named on its
command line, so those that need no rebuild are named in a requirement file instead.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from configparser import Error, RawConfigParser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from dora_daemon.build.plan import NAMES_TARGET, PIP
from dora_daemon.out_dir import OUT_DIR, is_python_project

_UV_COMMANDS = ("install", "uninstall", "list", "freeze", "show", "check")
_EDITABLE = ("-e", "--editable")
_WITHOUT_VALUE = ("--no-deps", "--pre", "-q", "-v", "--quiet", "--verbose", "--no-cache-dir")
_PURE_BACKENDS = ("setuptools", "hatchling", "flit_core", "poetry.core", "pdm.backend", "uv_build")
"""Build backends whose editable packages need no rebuild after a change of a module."""
_UNKNOWN_TO_UV = re.compile(r"unexpected argument|is unsupported|unrecognized subcommand")
_NO_NETWORK = re.compile(
    r"dns error|client error \(Connect\)|failed to lookup address|name resolution"
    r"|Could not resolve host(?:name)?|Network is unreachable|No route to host"
    r"|Failed to establish a new connection|operation timed out|Connection (?:refused|timed out)"
)
_CAUSE = re.compile(r"^[\s│├╰─▶]*(?:cause: |Caused by: )?")
_NOT_CACHED = re.compile(
    r"not found in the cache|network (?:connectivity )?(?:was|is) disabled", re.IGNORECASE
)
_UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
    "no-index": "UV_OFFLINE",
    "break-system-packages": "UV_BREAK_SYSTEM_PACKAGES",
}
"""Variables by setting of pip; a value of UV_FIND_LINKS is separated by commas."""


def pip_arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the arguments of pip, however it is called; None for another command."""
    if words[0] in PIP:
        return tuple(words[1:])
    if words[0] in ("python", "python3") and tuple(words[1:3]) == ("-m", "pip"):
        return tuple(words[3:])
    return None


def uses_uv(arguments: Sequence[str], python: Path | None) -> bool:
    """Return whether uv has the command and may write the packages of the interpreter.

    `python` None is the interpreter that runs dora. pip installs for the user where its packages
    cannot be written, uv does not.
    """
    if arguments[:1] == () or arguments[0] not in _UV_COMMANDS:
        return False
    writable = python is not None or os.access(sysconfig.get_path("purelib"), os.W_OK)
    return writable or find_spec("pip") is None


def uv_command(uv: str, arguments: Sequence[str], python: Path | None) -> tuple[str, ...]:
    """Return `uv pip ...` for the interpreter, unless the arguments name another target."""
    names_target = any(word.partition("=")[0] in NAMES_TARGET for word in arguments)
    target = () if names_target else ("--python", str(python or sys.executable))
    return (uv, "pip", arguments[0], *target, *arguments[1:])


def pip_command(arguments: Sequence[str], python: Path | None) -> tuple[str, ...]:
    """Return the command of dora's pip for the interpreter."""
    if python is None:
        return (sys.executable, "-m", "pip", *arguments)
    own = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check")
    return (*own, "--python", str(python), *arguments)


def split_projects(
    arguments: Sequence[str], directory: Path, python: Path | None
) -> tuple[list[str], list[str]]:
    """Return the arguments without the folders that need no rebuild, and requirements for these."""
    kept: list[str] = []
    requirements: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        option, equals, value = word.partition("=")
        editable = option in _EDITABLE
        if word.startswith("-") and not editable:
            kept.append(word)
            if not equals and word not in _WITHOUT_VALUE and words and words[0][:1] != "-":
                kept.append(words.popleft())  # perhaps the value of the option
            continue
        if editable and not equals and not words:
            kept.append(word)  # uv reports the missing value
            continue
        named = word if not editable else value if equals else words.popleft()
        path = named.partition("[")[0]
        folder = (directory / path).resolve()
        if _is_project(path, folder) and not _needs_rebuild(folder, python, editable=editable):
            requirement = f"{folder}{named[len(path) :]}"
            requirements.append(f"-e {requirement}" if editable else requirement)
        else:
            kept += ["--editable", named] if editable else [named]
    return kept, requirements


def _is_project(path: str, folder: Path) -> bool:
    return (path.startswith(".") or "/" in path) and is_python_project(folder)


def _needs_rebuild(folder: Path, python: Path | None, *, editable: bool) -> bool:
    """Return whether a folder has changed since it was installed.

    An editable package without compiled modules is used in place; uv detects changes of its project
    files.
    """
    if any(character in str(folder) for character in " #;"):
        return True  # these characters are special in a requirement file
    if editable and _is_pure(folder):
        return False
    installed = _installed_at(folder, python)
    return installed is None or any(changed >= installed for changed in _changes(folder))


def _is_pure(folder: Path) -> bool:
    if (folder / "setup.py").is_file():
        return False
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    table = project.get("build-system")
    backend = table.get("build-backend", "setuptools") if isinstance(table, dict) else "setuptools"
    return str(backend).startswith(_PURE_BACKENDS)


def _installed_at(folder: Path, python: Path | None) -> int | None:
    """Return the time in ns when the package of a folder was installed; None if it is not."""
    for site in site_directories(python):
        for origin in site.glob("*.dist-info/direct_url.json"):
            with suppress(OSError):
                if f'"{folder.as_uri()}"' in origin.read_text(errors="replace"):
                    return origin.stat().st_ctime_ns
    return None


def site_directories(python: Path | None) -> list[Path]:
    """Return the package folders of an interpreter; None: of the interpreter that runs dora."""
    if python is None:
        return [Path(sysconfig.get_path("purelib"))]
    return list(python.parent.parent.glob("lib/python*/site-packages"))


def _changes(folder: Path) -> Iterator[int]:
    """Yield times in ns at which folders and files of a project changed."""
    for directory, names, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            names.clear()
            continue
        yield Path(directory).stat().st_mtime_ns
        names[:] = [
            name for name in names if name[0] != "." and name not in ("__pycache__", OUT_DIR)
        ]
        for name in files:
            with suppress(FileNotFoundError):
                facts = (Path(directory) / name).lstat()
                yield max(facts.st_mtime_ns, facts.st_ctime_ns)


def is_unknown_to_uv(output: Sequence[str]) -> bool:
    """Return whether uv refused an option or command that pip may know."""
    return _UNKNOWN_TO_UV.search(" ".join(output)) is not None


def begins_error(line: str) -> bool:
    """Return whether a line of uv's output is the first one of its error."""
    return line.lstrip().startswith(("error:", "× "))


def lacks_download(output: Sequence[str]) -> bool:
    """Return whether uv failed because something was not downloaded before."""
    return _NOT_CACHED.search(" ".join(" ".join(output).split())) is not None


def network_failure(output: Sequence[str]) -> str | None:
    """Return the cause if a command failed because it reached no network; None otherwise."""
    causes = [line for line in output if _NO_NETWORK.search(line)]
    return _CAUSE.sub("", causes[-1]) if causes else None


def uv_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of pip as variables of uv, unless uv has its own index."""
    if environ.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE"}:
        return {}
    found = {
        _UV_VARIABLES[name]: ("," if name == "find-links" else " ").join(value.split())
        for name, value in _pip_settings(environ).items()
        if name in _UV_VARIABLES and value.strip()
    }
    # pip takes the best version of all indexes
    return {"UV_INDEX_STRATEGY": "unsafe-best-match"} | found


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings from its configuration files and environment variables."""
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    parser = RawConfigParser()
    if environ.get("PIP_CONFIG_FILE") != os.devnull:
        files = [
            Path("/etc/xdg/pip/pip.conf"),
            Path("/etc/pip.conf"),
            home / ".pip/pip.conf",
            config / "pip/pip.conf",
            Path(sys.prefix) / "pip.conf",
        ]
        files += [Path(environ["PIP_CONFIG_FILE"])] if environ.get("PIP_CONFIG_FILE") else []
        with suppress(Error, OSError, UnicodeDecodeError):
            parser.read(files)
    settings = {
        name.replace("_", "-"): value
        for section in ("global", "install")
        if parser.has_section(section)
        for name, value in parser.items(section)
    }
    return settings | {
        name[4:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_")
    }
