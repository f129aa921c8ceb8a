"""`dora why`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect_now

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.history.explanation import Explanation
    from dora_config.protocol.control import Explained

ADOPTION_SECONDS = 5.0
"""Limit in seconds for a run to answer; then its files are read."""
ADOPTION_POLL = 0.1
"""Seconds between two requests while the runner has not answered."""


def why(
    dataflow: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATAFLOW]",
            help="UUID or name, for a local run the start of a UUID; by default the "
            "only one that runs or is in trouble, else the last one.",
        ),
    ] = None,
    output_format: Annotated[
        options.TextFormat,
        typer.Option("--format", "-f", case_sensitive=False, help="Text, or one JSON object."),
    ] = "text",
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="Write a .tar.gz for an issue report: dataflow, versions, events, logs "
            "and metrics, without values that look secret.",
        ),
    ] = None,
    last: Annotated[
        float, options.duration("--last", help="With --archive: time span of the logs.")
    ] = 600.0,
    local: Annotated[
        bool, typer.Option("--local", help="Explain a run of this folder, without a coordinator.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Explain what failed first, what followed, and what a dataflow waits for.

    Works for running and ended dataflows, for starts that were refused, and in the folder of a
    `dora run`. Times of several machines are corrected by their clock offsets. In the timeline, `>`
    marks the first cause and `!` other problems.
    """
    if archive is not None:
        from dora_cli.why.archive import check_path

        check_path(archive)
    explained = None
    if not local:
        explained = _explain(dataflow, archive, last, coordinator_addr, coordinator_port)
    _show(explained or _explain_here(dataflow, archive, last), output_format)


def _show(explained: Explanation, output_format: options.TextFormat) -> None:
    if output_format == "json":
        output.json_line(explained.model_dump(mode="json"))
        return
    from dora_cli.why.text import explanation_lines

    for line in explanation_lines(explained):
        output.write(line)


def _explain(
    dataflow: str | None, archive: Path | None, last: float, addr: str | None, port: int | None
) -> Explanation | None:
    """Return the coordinator's explanation; None: use local files instead."""
    from dora_cli.coordinator.errors import CoordinatorUnreachable, RequestFailed
    from dora_cli.logs.files import here
    from dora_config.protocol.control import Explain

    try:
        client = connect_now(addr, port, or_here=True)
    except CoordinatorUnreachable:
        output.remark(f"no coordinator answers: reading the history below {here()}")
        return None
    with client:
        request = Explain(dataflow=dataflow, evidence=archive is not None)
        try:
            answer = client.request(request)
        except RequestFailed as error:
            if error.code != "not_found" or not _has_files(dataflow):
                raise
            return None
        found = answer.explanation
        if not found.name and not found.uuid and _has_files(dataflow):
            output.remark(f"the coordinator has no dataflows: reading the history below {here()}")
            return None
        if archive is not None:
            _archive(client, answer, archive, last)
    return found


def _archive(client: CoordinatorClient, answer: Explained, path: Path, last: float) -> None:
    from dora_cli.why import archive
    from dora_cli.why.archive import remote_report
    from dora_config.access_token import Token

    report = remote_report(client, answer, last)
    token = client.endpoint.token
    archive.write(path, report, () if token is None else (token, Token.parse(token).secret))


def _has_files(dataflow: str | None) -> bool:
    from dora_cli.logs.files import NoSuchRun
    from dora_cli.why.local import choose_history

    try:
        choose_history(Path.cwd(), dataflow)
    except NoSuchRun:
        return False
    return True


def _explain_here(dataflow: str | None, archive: Path | None, last: float) -> Explanation:
    """Explain a run in this folder, from its runner if it runs, else from files."""
    from dora_cli.why.local import choose_history, evidence
    from dora_config.history.explain import explain
    from dora_daemon.agent.local_runs import local_runs

    base = Path.cwd()
    run = choose_history(base, dataflow)
    if local_runs(run.dataflow):
        from dora_cli.coordinator.local_runs import client_of_run

        with client_of_run(run.dataflow) as client:
            answer = _adopted(client, run.dataflow)
            if answer is not None:
                if archive is not None:
                    _archive(client, answer, archive, last)
                return answer.explanation
    known = evidence(run)
    if archive is not None:
        from dora_cli.why import archive as archives
        from dora_cli.why.archive import local_report

        archives.write(archive, local_report(base, run, known, last), ())
    return explain(known)


def _adopted(client: CoordinatorClient, uuid: str) -> Explained | None:
    """Return the explanation once the runner has answered; None if it has not in time."""
    from dora_cli.coordinator.errors import RequestFailed
    from dora_config.protocol.control import Explain

    request = Explain(dataflow=uuid, evidence=True)
    until = time.monotonic() + ADOPTION_SECONDS
    while time.monotonic() < until:
        try:
            answer = client.request(request)
        except RequestFailed as error:
            if error.code != "not_found":
                raise
        else:
            assert answer.evidence is not None
            if not any(one.problem for one in answer.evidence.machines):
                return answer
        time.sleep(ADOPTION_POLL)
    return None
