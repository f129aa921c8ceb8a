"""Command `dora daemon`: arguments, name and folders of the daemon, signals."""

from __future__ import annotations

import dora_config.quick_imports  # noqa: F401

# isort: split
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import anyio
import typer

from dora_config.access import Endpoint, endpoint
from dora_config.errors import InvalidId, exit_code
from dora_config.ids import parse_label, parse_machine_id
from dora_config.linux import require_linux
from dora_config.program import HELP, checked, command_of, run
from dora_config.protocol.daemon import EndDaemon
from dora_config.protocol.links import FIRST_PORT, LAST_PORT
from dora_config.service_logging import log_to_stderr
from dora_daemon.agent.events import Event, HandoverRequested, MachineStopping
from dora_daemon.agent.linking import LinkError, Listen, parse_listen, plain_problem
from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT, DaemonFiles, state_directory
from dora_daemon.agent.service import OFFLINE_AFTER, Agent, AgentOptions
from dora_daemon.process_tree.runtime_dir import runtime_root
from dora_node_api.protocol.runner_index import PORT_VARIABLE

HAND_OVER: Final = (signal.SIGHUP, signal.SIGUSR2)
"""Signals that end the daemon but not its nodes, which the next daemon process adopts."""

logger = logging.getLogger("dora.daemon")


ANSWER_TIMEOUT: Final = 2.0
"""Seconds for the init system, which is busy during a shutdown."""


async def system_is_stopping() -> bool:
    """Whether a SIGTERM was sent because of a shutdown, after which dataflows continue.

    False if neither systemd nor a runlevel reports it.
    """
    state = await _output("systemctl", "is-system-running")
    if state is not None:
        return state == "stopping"
    runlevel = await _output("runlevel")
    return runlevel is not None and runlevel.split()[-1:] in (["0"], ["6"])


async def _output(*command: str) -> str | None:
    """Return the output of a command; None if it is missing, too slow or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    except (OSError, TimeoutError):
        return None
    return done.stdout.decode(errors="replace").strip() or None


def parse_seconds(text: str) -> float:
    """Return a number of seconds; raises ValueError."""
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise ValueError(f"{text!r} is not a number of seconds")


def parse_labels(text: str) -> dict[str, str]:
    """Return the labels in `K=V,...`; raises ValueError."""
    labels: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"invalid label {pair!r}: expected key=value")
        if key in labels:
            raise ValueError(f"label {key!r} is given twice")
        try:
            labels[parse_label(key, "label key")] = parse_label(value, "label value")
        except InvalidId as error:
            raise ValueError(f"invalid label {pair!r}: {error}") from error
    return labels


IGNORED: Final = {
    "--zenoh-connect": "the coordinator sends links the addresses of their peers",
    "--zenoh-peer": "links connect to each other, not to a router",
    "--zenoh-config-overlay": "the only setting of links is --zenoh-listen",
    "--worker-threads": "each dataflow has its own process",
    "--rt": "set priorities with systemd or chrt",
}
"""Options of dora-rs that are accepted, and why they are not needed."""

_Ignored = Annotated[str | None, typer.Option(hidden=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal or `dora down`; return the exit code."""
    return run(command(), arguments, "dora daemon")


def command() -> Any:
    """Return the command `dora daemon`."""
    return command_of("daemon", _daemon, context_settings=dict(HELP))


MachineId = Annotated[
    str | None,
    typer.Option(
        "--machine-id",
        parser=checked(parse_machine_id),
        metavar="ID",
        help="Name of this machine in dataflows; without it this is the default daemon.",
    ),
]
CoordinatorAddr = Annotated[
    str | None,
    typer.Option(
        "--coordinator-addr",
        "-c",
        metavar="IP",
        help="Default: 127.0.0.1, or DORA_COORDINATOR_ADDR.",
    ),
]
CoordinatorPort = Annotated[
    int | None,
    typer.Option(
        "--coordinator-port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Default: 6013, or DORA_COORDINATOR_PORT.",
    ),
]
Labels = Annotated[
    dict[str, str],
    typer.Option(
        "--labels",
        parser=checked(parse_labels),
        metavar="K=V,...",
        show_default=False,
        help="For placement by labels.",
    ),
]
LocalListenPort = Annotated[
    int,
    typer.Option(
        "--local-listen-port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Distinguishes daemons on one machine, as `daemon_port` of dynamic nodes does "
        "too; needed for two without a machine id.",
    ),
]
AllowShellNodes = Annotated[
    bool,
    typer.Option(
        "--allow-shell-nodes", help="Allow nodes with `path: shell`, which can run any command."
    ),
]
OfflineAfter = Annotated[
    float,
    typer.Option(
        "--offline-after",
        parser=checked(parse_seconds),
        metavar="SECONDS",
        help="After this time without the coordinator, start the nodes here that a reboot or "
        "crash ended.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print warnings and errors only (also DORA_QUIET).")
]
LinkAddress = Annotated[
    Listen,
    typer.Option(
        "--zenoh-listen",
        parser=checked(parse_listen),
        metavar="IP[:PORT[-PORT]]",
        show_default=False,
        help="Where links to other machines listen, with two ports for each dataflow (default: "
        f"the address that leads to the coordinator, ports {FIRST_PORT}-{LAST_PORT}; one port "
        "stands for it and the next 99).",
    ),
]
LinkEncryption = Annotated[
    Literal["tls", "plain"],
    typer.Option(
        "--links",
        help="plain: do not encrypt messages between machines, for networks that are encrypted "
        "already (WireGuard, Tailscale, a cable); all machines must use the same.",
    ),
]
PlainInPublic = Annotated[
    bool,
    typer.Option(
        "--i-know",
        help="Allow --links plain on a public address, where others can read and forge messages.",
    ),
]


def _daemon(
    machine_id: MachineId = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
    labels: Labels = "",  # type: ignore[assignment]
    local_listen_port: LocalListenPort = DEFAULT_LISTEN_PORT,
    allow_shell_nodes: AllowShellNodes = False,
    offline_after: OfflineAfter = OFFLINE_AFTER,
    quiet: Quiet = False,
    zenoh_listen: LinkAddress = Listen(),  # noqa: B008 - frozen
    links: LinkEncryption = "tls",
    i_know: PlainInPublic = False,
    zenoh_no_multicast: Annotated[bool, typer.Option("--zenoh-no-multicast", hidden=True)] = False,
    zenoh_connect: _Ignored = None,
    zenoh_peer: _Ignored = None,
    zenoh_config_overlay: _Ignored = None,
    worker_threads: _Ignored = None,
    rt: Annotated[bool, typer.Option("--rt", hidden=True)] = False,
) -> None:
    """Run the nodes that a coordinator places on this machine."""
    log_to_stderr(quiet=quiet or os.environ.get("DORA_QUIET", "").lower() in ("1", "true"))
    logging.getLogger("websockets").setLevel(logging.ERROR)
    given = (zenoh_connect, zenoh_peer, zenoh_config_overlay, worker_threads, rt)
    for (name, reason), value in zip(IGNORED.items(), given, strict=True):
        if value:
            logger.warning("%s has no effect: %s", name, reason)

    def serve() -> int:
        require_linux()
        reach = partial(endpoint, coordinator_addr, coordinator_port)
        os.environ[PORT_VARIABLE] = str(local_listen_port)
        reach()  # a bad address or token file is an error at the start, not a reason to retry
        # Locked until the process has ended: `dora cluster` waits for the lock.
        files = DaemonFiles(state_directory(machine_id, local_listen_port))
        options = AgentOptions(
            machine_id=machine_id,
            labels=labels,
            base_dir=Path.cwd(),
            allow_shell=allow_shell_nodes,
            listen=listen_options(zenoh_listen, plain=links == "plain", public_ok=i_know),
            offline_after=offline_after,
            spare_runner=True,
        )
        anyio.run(_serve, options, files, reach)
        return 0

    raise typer.Exit(exit_code(serve))


def listen_options(listen: Listen, *, plain: bool, public_ok: bool) -> Listen:
    """Return the addresses at which links listen. Raises LinkError."""
    if not plain:
        return listen
    listen = replace(listen, plain=True, public_ok=public_ok)
    if listen.host is not None and not public_ok:
        problem = plain_problem(listen.host)
        if problem is not None:
            raise LinkError(problem)
    logger.warning("links: plain: messages to and from other machines are not encrypted")
    return listen


async def _serve(options: AgentOptions, files: DaemonFiles, reach: Callable[[], Endpoint]) -> None:
    agent = Agent(options, files, runtime_root(), reach)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_forward_signals, agent)
        await agent.run()
        tasks.cancel_scope.cancel()


async def _forward_signals(agent: Agent) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *HAND_OVER) as signals:
        async for number in signals:
            event, action = await _interpret(number)
            logger.info("%s: %s", signal.Signals(number).name, action)
            agent.post(event)


async def _interpret(number: int) -> tuple[Event, str]:
    """Return the event for a signal, and its description."""
    if number in HAND_OVER:
        return HandoverRequested(), "ending; nodes keep running"
    if number == signal.SIGTERM and await system_is_stopping():
        return MachineStopping(), "the machine stops; dataflows continue when it is back"
    return EndDaemon(), "stopping the dataflows of this machine, then ending"


if __name__ == "__main__":
    sys.exit(main())
