"""Settings of a host from `~/.ssh/config`, as the OpenSSH client reads it; pure.

The first value of a keyword wins, except for those that collect (`IdentityFile`). `Host`, `Match`
and `Include` are supported; of Match's criteria `all`, `host`, `originalhost`, `user`,
`localuser` and `exec`. Other keywords are ignored.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dora_config import DoraError

Include = Callable[[str, str], Iterable[tuple[str, str]]]
"""Maps the including file and its pattern to (name, text) of the included files."""

_COLLECTED = ("identityfile",)
_DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MAX_INCLUDES = 16


class ConfigProblem(DoraError):
    """A line of an SSH configuration is malformed; ``str()`` names it."""


@dataclass(frozen=True, slots=True)
class HostQuery:
    """The host and the account, before any file is read."""

    host: str
    """As the user wrote it."""
    local_user: str
    home: str
    user: str | None = None
    port: int | None = None
    local_host: str = ""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How to connect to a host; all names and paths are complete."""

    host: str
    user: str
    port: int
    identity_files: tuple[str, ...]
    identities_given: bool
    """Whether a file sets them; otherwise they are the defaults, most of which do not exist."""
    identities_only: bool
    identity_agent: str | None
    """A socket, "none", or None for SSH_AUTH_SOCK."""
    proxy_jump: str | None
    proxy_command: str | None
    host_key_name: str
    """Its name in known_hosts."""
    known_hosts: tuple[str, ...]
    """New keys go to the first; without files they are not recorded."""
    global_known_hosts: tuple[str, ...]
    accept_new: bool
    hash_known_hosts: bool


def read_config(
    query: HostQuery,
    files: Sequence[tuple[str, str]],
    include: Include = lambda _name, _pattern: (),
    runs: Callable[[str], bool] = lambda _command: False,
) -> HostSettings:
    """Return the settings for a host from (name, text) of files in order; raises ConfigProblem.

    ``runs`` returns whether a command of `Match exec` succeeds.
    """
    reader = _Reader(query, include, runs)
    for name, text in files:
        reader.read(name, text)
    return reader.settings()


class _Reader:
    def __init__(self, query: HostQuery, include: Include, runs: Callable[[str], bool]) -> None:
        self._query = query
        self._include = include
        self._runs = runs
        self._found: dict[str, list[str]] = {}
        if query.user is not None:
            self._found["user"] = [query.user]
        if query.port is not None:
            self._found["port"] = [str(query.port)]

    def read(self, name: str, text: str, *, active: bool = True, depth: int = 0) -> None:
        if depth > _MAX_INCLUDES:
            raise ConfigProblem(f"{name}: included more than {_MAX_INCLUDES} deep")
        outer = active
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{name}:{number}"
            keyword, words = _split(line, place)
            if keyword == "host":
                active = outer and matches(self._query.host, words)
            elif keyword == "match":
                active = outer and self._matching(words, place)
            elif keyword == "include":
                for pattern in words if active else ():
                    for inner_name, inner in self._include(name, pattern):
                        self.read(inner_name, inner, active=active, depth=depth + 1)
            elif keyword and active and words:
                self._take(keyword, words)

    def _take(self, keyword: str, words: list[str]) -> None:
        if keyword in _COLLECTED:
            known = self._found.setdefault(keyword, [])
            if words[0] not in known:
                known.append(words[0])
        elif keyword in ("proxycommand", "proxyjump"):  # the first of the two wins
            if not {"proxycommand", "proxyjump"} & self._found.keys():
                self._found[keyword] = words
        else:
            self._found.setdefault(keyword, words)

    def _matching(self, words: list[str], place: str) -> bool:
        if not words:
            raise ConfigProblem(f"{place}: `Match` without a criterion")
        result = True
        rest = list(words)
        while rest:
            word = rest.pop(0)
            expected = not word.startswith("!")
            criterion, _, value = word.lstrip("!").partition("=")
            criterion = criterion.lower()
            if criterion in ("all", "canonical", "final"):
                result = result and (criterion == "all") == expected
                continue
            if not value:
                if not rest:
                    raise ConfigProblem(f"{place}: `Match {criterion}` needs a value")
                value = rest.pop(0)
            # as in OpenSSH, a command only runs if all criteria before it match
            result = result and self._holds(criterion, value) == expected
        return result

    def _holds(self, criterion: str, value: str) -> bool:
        match criterion:
            case "host":
                return matches(self._host(), value.split(","))
            case "originalhost":
                return matches(self._query.host, value.split(","))
            case "user":
                return matches(self._one("user", self._query.local_user), value.split(","))
            case "localuser":
                return matches(self._query.local_user, value.split(","))
            case "exec":
                return self._runs(self._expand(value))
        return False

    def _one(self, keyword: str, default: str = "") -> str:
        return self._found.get(keyword, [default])[0]

    def _yes(self, keyword: str) -> bool:
        return self._one(keyword).lower() in ("yes", "true")

    def _host(self) -> str:
        name = self._one("hostname", self._query.host)
        return name.replace("%h", self._query.host).replace("%%", "%")

    def _expand(self, text: str) -> str:
        """Return a value with its `%` tokens replaced."""
        query = self._query
        values = {
            "%": "%",
            "h": self._host(),
            "n": query.host,
            "p": self._one("port", "22"),
            "r": self._one("user", query.local_user),
            "u": query.local_user,
            "d": query.home,
            "l": query.local_host,
            "L": query.local_host.partition(".")[0],
            "k": self._one("hostkeyalias", query.host),
            "j": self._one("proxyjump"),
        }
        return re.sub(r"%(.)", lambda found: values.get(found[1], found[0]), text)

    def _path(self, text: str) -> str:
        expanded = self._expand(text)
        if expanded == "~" or expanded.startswith("~/"):
            return self._query.home + expanded[1:]
        return expanded

    def _paths(self, keyword: str, default: Sequence[str]) -> tuple[str, ...]:
        """Return the paths of a keyword, whose only word may be `none`."""
        words = self._found.get(keyword, default)
        return tuple(self._path(word) for word in words if word.lower() != "none")

    def settings(self) -> HostSettings:
        jump = self._one("proxyjump")
        command = self._found.get("proxycommand", [""])[0]
        agent = self._found.get("identityagent", ["SSH_AUTH_SOCK"])[0]
        given = "identityfile" in self._found
        identities = [f"~/.ssh/{name}" for name in _DEFAULT_IDENTITIES]
        files = self._paths("identityfile", identities)
        port = self._one("port", "22")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigProblem(f"Port {port!r} of host {self._query.host}: not a port")
        return HostSettings(
            host=self._host(),
            user=self._one("user", self._query.local_user),
            port=int(port),
            identity_files=files,
            identities_given=given,
            identities_only=self._yes("identitiesonly"),
            identity_agent=None if agent == "SSH_AUTH_SOCK" else self._path(agent),
            proxy_jump=self._expand(jump) if jump and jump.lower() != "none" else None,
            proxy_command=self._expand(command) if command and command != "none" else None,
            host_key_name=self._one("hostkeyalias", self._host()),
            known_hosts=self._paths("userknownhostsfile", _KNOWN_HOSTS),
            global_known_hosts=self._paths("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
            accept_new=self._one("stricthostkeychecking").lower() not in ("yes", "true"),
            hash_known_hosts=self._yes("hashknownhosts"),
        )


def _split(line: str, place: str) -> tuple[str, list[str]]:
    """Return the keyword in lower case and its arguments; empty for a comment or an empty line."""
    text = line.strip()
    if not text or text.startswith("#"):
        return "", []
    found = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+|$)", text)
    if not found:
        raise ConfigProblem(f"{place}: expected a keyword and a value, found {text!r}")
    keyword, rest = found[1].lower(), text[found.end() :]
    if keyword == "proxycommand":  # the rest of the line, unparsed
        return keyword, [rest]
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = "#" if re.search(r"(^|\s)#", rest) else ""
    lexer.escape = ""
    try:
        return keyword, list(lexer)
    except ValueError as error:
        raise ConfigProblem(f"{place}: {error}: {text!r}") from None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches patterns with `*` and `?`; one after `!` must not match."""
    fits = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        if _fits(name.lower(), pattern.removeprefix("!").lower()):
            if negated:
                return False
            fits = True
    return fits


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))
