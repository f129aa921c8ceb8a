"""Archive of one dataflow for an issue report: what happened, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.logs.files import LocalLog, RecordedRun
from dora_cli.why.local import read_machines
from dora_cli.why.text import explanation_lines
from dora_config.atomic_write import write_file
from dora_config.errors import DoraError
from dora_config.history.entries import RunBegan
from dora_config.history.evidence import Evidence
from dora_config.history.explain import explain
from dora_config.history.explanation import Explanation
from dora_config.protocol.control import (
    ClusterStatus,
    DescribeDataflow,
    Explained,
    GetSnapshot,
    LogLines,
    ReadLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_config.protocol.snapshot import REUSED_SECONDS
from dora_config.yaml.quantities import show_size

MAX_LOG_LINES: Final = 20_000
"""Lines of logs in an archive; the last ones are kept."""
FOLDER: Final = "dora-report"

REDACTED: Final = "<redacted>"
MIN_SECRET_LENGTH: Final = 6
"""Fewest characters of a value that is removed wherever it occurs; shorter ones are too common."""

_STRICT_KEYS: Final = frozenset({"env", "env_overrides", "params"})
"""Keys whose values come from users, so that random-looking ones are removed as well."""

_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd$|credential|private|api_?key|access_?key|auth|session|cookie"
    r"|(^|_)key$|(^|_)pat$|dsn|webhook|signature",
    re.IGNORECASE,
)
_WORDS = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key)"
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----[^\"]*")
_URL_PASSWORD = re.compile(
    r"(?P<start>[a-z][a-z0-9+.-]*://[^\s/@:\"']*):[^\s/@\"']+@", re.IGNORECASE
)
_BEARER = re.compile(r"(?P<start>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?P<start>[A-Za-z0-9_.-]*{_WORDS}[A-Za-z0-9_.-]*[\"'\\]*\s*[=:]\s*[\"'\\]*)"
    rf"(?!{REDACTED})[^\s\"'\\,;&}}]{{3,}}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<start>--?[a-z-]*{_WORDS}[a-z-]*\s+)(?!{REDACTED})[^\s\"'\\-]\S*", re.I)
_KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
_SECRET_FORMS: Final = (
    (_PEM, REDACTED),
    (_URL_PASSWORD, rf"\g<start>:{REDACTED}@"),
    (_BEARER, rf"\g<start>{REDACTED}"),
    (_ASSIGNED, rf"\g<start>{REDACTED}"),
    (_OPTION, rf"\g<start>{REDACTED}"),
    (_KNOWN_TOKEN, REDACTED),
)


def looks_secret(name: str, value: str, *, strict: bool = True) -> bool:
    """Return whether a value looks secret by its name or its form.

    ``strict``: long values that look random count as well, as in environment variables.
    """
    if not value or value == REDACTED:
        return False
    if _SECRET_NAME.search(name):
        return True
    if _PEM.search(value) or _URL_PASSWORD.search(value) or _KNOWN_TOKEN.search(value):
        return True
    return strict and _RANDOM.fullmatch(value) is not None and _is_mixed(value)


def _is_mixed(text: str) -> bool:
    """Return whether a word has letters and digits like a random one, unlike a path."""
    digits = sum(character.isdigit() for character in text)
    return digits >= 4 and digits < len(text)


class Redactor:
    """Collects secret values, then removes them from texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """``secrets``: values that are known to be secret."""
        self._secrets: set[str] = set()
        self.removed = 0
        """Values that were replaced so far."""
        for secret in secrets:
            self.add(secret)

    def add(self, value: str) -> None:
        """Remove a value wherever it occurs from now on."""
        if len(value) >= MIN_SECRET_LENGTH:
            self._secrets.add(value)

    def add_variables(self, variables: Mapping[str, str]) -> None:
        """Add the values of environment variables that look secret."""
        for name, value in variables.items():
            if looks_secret(name, value):
                self.add(value)

    def values(self, value: Any, name: str = "", *, strict: bool = False) -> Any:
        """Return a JSON value without strings and numbers that look secret; ``name``: its key."""
        strict = strict or name in _STRICT_KEYS
        match value:
            case dict():
                return {
                    key: self.values(one, str(key), strict=strict) for key, one in value.items()
                }
            case list() | tuple():
                return [self.values(one, name, strict=strict) for one in value]
            case bool() | None:
                return value
            case _ if looks_secret(name, str(value), strict=strict):
                self.add(str(value))
                self.removed += 1
                return REDACTED
            case _:
                return value

    def text(self, text: str) -> str:
        """Return a text without secret values and without words that look like one."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            for form in {secret, _in_json(secret)}:
                text, count = self._replaced(text, form)
                self.removed += count
        for pattern, replacement in _SECRET_FORMS:
            text, count = pattern.subn(replacement, text)
            self.removed += count
        return text

    @staticmethod
    def _replaced(text: str, secret: str) -> tuple[str, int]:
        count = text.count(secret)
        return (text.replace(secret, REDACTED), count) if count else (text, 0)


def _in_json(text: str) -> str:
    """Return a text as it is written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


class NotAnArchive(DoraError):
    """The path of the archive cannot be used."""


@dataclass(slots=True)
class Report:
    """Contents of an archive before secrets are removed."""

    explained: Explanation
    evidence: Evidence
    descriptor: Mapping[str, Any] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the user gave to all nodes, and those of this command."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    logs: Mapping[str, Iterable[str]] = field(default_factory=dict)
    """Lines by machine, as in the log files; the name is empty for a local run."""
    metrics: Any = None

    def last_event(self) -> float:
        """Return the end of the time span of the logs."""
        return last_moment(self.evidence)


def last_moment(evidence: Evidence) -> float:
    """Return the present time, or the time of the last event of an ended dataflow."""
    if not evidence.ended:
        return evidence.now
    times = [entry.at for entry in evidence.entries]
    times += [entry.at for one in evidence.machines for entry in one.entries]
    return max(times, default=evidence.now)


def own_versions() -> dict[str, Any]:
    """Return the versions of this installation and its platform."""
    return {
        "dora": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def remote_report(client: CoordinatorClient, answer: Explained, seconds: float) -> Report:
    """Return the report of a coordinator and its daemons; ``seconds``: time span of the logs."""
    assert answer.evidence is not None, "requested with it"
    explained = answer.explanation
    report = Report(explained, answer.evidence)
    cluster = client.request(ClusterStatus())
    report.versions = {
        **own_versions(),
        "coordinator": str(cluster.coordinator),
        "daemons": {one.daemon: one.release for one in cluster.machines},
        "runners": {one.daemon: list(one.runners) for one in cluster.machines},
    }
    if explained.uuid:
        report.metrics = _snapshots(client, explained.uuid, twice=not answer.evidence.ended)
        described = client.request(DescribeDataflow(dataflow=explained.uuid))
        spec = described.spec
        report.descriptor = {
            "dataflow": spec.descriptor,
            "env_overrides": spec.env_overrides,
            "params": spec.params,
            "daemons": described.daemons,
        }
        report.variables = spec.env_overrides
        report.logs = _remote_logs(client, explained.uuid, report.last_event() - seconds)
    return report


def _snapshots(client: CoordinatorClient, uuid: str, *, twice: bool) -> list[Any]:
    """Return machines, nodes and edges; ``twice``: also a moment later, for rates."""
    found = [client.request(GetSnapshot(dataflow=uuid)).model_dump(mode="json")]
    if twice:
        time.sleep(2 * REUSED_SECONDS)
        found.append(client.request(GetSnapshot(dataflow=uuid)).model_dump(mode="json"))
    return found


def _remote_logs(client: CoordinatorClient, uuid: str, since: float) -> dict[str, list[str]]:
    found: dict[str, deque[str]] = {}

    def receive(lines: LogLines) -> None:
        found.setdefault(lines.daemon, deque(maxlen=MAX_LOG_LINES)).extend(lines.lines)

    wanted = LogFilter(since=since, tail=MAX_LOG_LINES)
    try:
        end = client.follow(ReadLogs(dataflow=uuid, filter=wanted), receive)
    except RequestFailed as error:
        return {"": [f"the logs could not be read: {error}"]}
    logs = {machine: list(lines) for machine, lines in found.items()}
    if end.problems:
        logs["problems"] = list(end.problems)
    return logs


def local_report(base: Path, run: RecordedRun, known: Evidence, seconds: float) -> Report:
    """Return the report of a run from its files below ``base``."""
    report = Report(explain(known), known, _matching_dataflow(base, run))
    events = [one.event for entries, _ in read_machines(run).values() for one in entries]
    report.versions = {
        **own_versions(),
        "runners": sorted({one.version for one in events if isinstance(one, RunBegan)}),
    }
    wanted = LogFilter(since=report.last_event() - seconds, tail=MAX_LOG_LINES)
    with closing(LocalLog(base, run.dataflow, wanted)) as log:
        report.logs = {"": list(log.new_lines())}
    return report


def _matching_dataflow(base: Path, run: RecordedRun) -> dict[str, Any] | None:
    """Return the dataflow file in ``base`` that has the nodes of a run; None if no file has."""
    from dora_config.dataflow.loader import load_dataflow

    events = [one.event for entries, _ in read_machines(run).values() for one in entries]
    nodes = {node for one in events if isinstance(one, RunBegan) for node in one.nodes}
    for path in sorted([*base.glob("*.yml"), *base.glob("*.yaml")]):
        try:
            loaded = load_dataflow(path)
        except (DoraError, OSError):
            continue
        if {node.id for node in loaded.resolved.nodes} == nodes:
            return {"file": path.name, "dataflow": loaded.descriptor_dict}
    return None


def check_path(path: Path) -> None:
    """Raise NotAnArchive unless a file can be written there."""
    if path.is_dir():
        raise NotAnArchive(f"{path} is a directory; name the file of the archive")
    if path.exists() and not path.is_file():
        raise NotAnArchive(f"{path} is not a regular file and is not replaced; name another file")
    if not path.parent.is_dir():
        raise NotAnArchive(f"{path.parent} does not exist; create the folder of the archive first")


def write(path: Path, report: Report, secrets: Iterable[str]) -> None:
    """Write the archive, readable by this user only, and print what it contains.

    ``secrets``: values that are removed wherever they occur. Raises OSError.
    """
    redactor = Redactor(secrets)
    redactor.add_variables(os.environ)
    redactor.add_variables(report.variables)
    files = contents(report, redactor)
    packed = _packed(files)
    write_file(path, packed, mode=0o600)
    names = ", ".join(files)
    output.remark(
        f"wrote {path} ({show_size(len(packed))}): {names}; replaced "
        f"{output.counted(redactor.removed, 'value')} that looked secret; read it before you "
        "publish it"
    )


def contents(report: Report, redactor: Redactor) -> dict[str, str]:
    """Return the files of the archive by name, without secrets."""
    # logs come last: values that were found by their key in other files are removed there too
    values = {
        "dataflow.json": report.descriptor,
        "versions.json": report.versions,
        "history.json": report.evidence.model_dump(mode="json"),
        "metrics.json": report.metrics,
        "explanation.json": report.explained.model_dump(mode="json"),
    }
    found = {
        name: json.dumps(redactor.values(value), indent=1, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }
    for machine, lines in report.logs.items():
        name = f"logs_{machine}.jsonl" if machine else "logs.jsonl"
        found[name] = "\n".join(_line(line, redactor) for line in lines)
    found["explanation.txt"] = "\n".join(explanation_lines(report.explained))
    return {name: f"{redactor.text(text)}\n" for name, text in found.items()}


def _line(line: str, redactor: Redactor) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return line
    return json.dumps(redactor.values(value), ensure_ascii=False)


def _packed(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
