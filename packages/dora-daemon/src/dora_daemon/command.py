"""Command `dora daemon`: arguments, name and folders of the daemon, signals."""

from __future__ import annotations

import dora_config.quick_imports  # noqa: F401

# isort: split
import argparse
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
from typing import Final

import anyio

from dora_config.access import Endpoint, endpoint
from dora_config.errors import InvalidId, exit_code
from dora_config.ids import parse_label, parse_machine_id
from dora_config.linux import require_linux
from dora_config.protocol.daemon import EndDaemon
from dora_config.protocol.links import FIRST_PORT, LAST_PORT
from dora_config.service_logging import log_to_stderr
from dora_daemon.agent.events import Event, HandoverRequested, MachineStopping
from dora_daemon.agent.linking import LinkError, Listen, parse_listen, plain_problem
from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT, DaemonFiles, state_directory
from dora_daemon.agent.service import OFFLINE_AFTER, Agent, AgentOptions
from dora_daemon.process_tree.runner_index import PORT_VARIABLE
from dora_daemon.process_tree.runtime_dir import runtime_root

HAND_OVER: Final = (signal.SIGHUP, signal.SIGUSR2)
"""End, and leave the nodes to the next daemon process."""

logger = logging.getLogger("dora.daemon")


ANSWER_TIMEOUT: Final = 2.0
"""Seconds for the init system, which is busy during a shutdown."""


async def system_is_stopping() -> bool:
    """Whether a SIGTERM was sent because of a shutdown, after which dataflows continue.

    False if that is unknown: no systemd, no runlevel.
    """
    state = await _output("systemctl", "is-system-running")
    if state is not None:
        return state == "stopping"
    runlevel = await _output("runlevel")
    return runlevel is not None and runlevel.split()[-1:] in (["0"], ["6"])


async def _output(*command: str) -> str | None:
    """Return what a command prints, None if it is missing, too slow or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    except (OSError, TimeoutError):
        return None
    return done.stdout.decode(errors="replace").strip() or None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal or `dora down`; return the exit code."""
    options = argument_parser().parse_args(arguments)
    quiet = options.quiet or os.environ.get("DORA_QUIET", "").lower() in ("1", "true")
    log_to_stderr(quiet=quiet)
    logging.getLogger("websockets").setLevel(logging.ERROR)
    for name in options.ignored:
        logger.warning("%s has no effect: %s", name, IGNORED[name])
    return exit_code(lambda: _run(options))


IGNORED: Final = {
    "--zenoh-connect": "the coordinator sends links the addresses of their peers",
    "--zenoh-peer": "links connect to each other, not to a router",
    "--zenoh-config-overlay": "the only setting of links is --zenoh-listen",
    "--worker-threads": "each dataflow has its own process",
    "--rt": "set priorities with systemd or chrt",
}
"""Options of dora-rs that are accepted, and why they are not needed."""


class _Ignored(argparse.Action):
    """Note an option that is accepted without effect."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        namespace.ignored = [*namespace.ignored, option_string]


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dora daemon", description="Run the nodes that a coordinator places on this machine."
    )
    parser.set_defaults(ignored=[])
    add = parser.add_argument
    add(
        "--machine-id",
        type=_machine_id,
        metavar="ID",
        help="name of this machine in dataflows; without it this is the default daemon",
    )
    add(
        "-c",
        "--coordinator-addr",
        metavar="IP",
        help="default: 127.0.0.1, or DORA_COORDINATOR_ADDR",
    )
    add("--coordinator-port", type=_port, help="default: 6013, or DORA_COORDINATOR_PORT")
    add("--labels", type=_labels, default={}, metavar="K=V,...", help="for placement by labels")
    add(
        "--local-listen-port",
        type=_port,
        default=DEFAULT_LISTEN_PORT,
        metavar="PORT",
        help="distinguishes daemons on one machine, as `daemon_port` of dynamic nodes does too; "
        "needed for two without a machine id (default: 53291)",
    )
    add(
        "--allow-shell-nodes",
        action="store_true",
        help="allow nodes with `path: shell`, which can run any command",
    )
    add(
        "--offline-after",
        type=_seconds,
        default=OFFLINE_AFTER,
        metavar="SECONDS",
        help="without the coordinator for so long, start the nodes here that a reboot or "
        "crash ended (default: 20)",
    )
    add("--quiet", action="store_true", help="print warnings and errors only (also DORA_QUIET)")
    _add_link_options(parser)
    return parser


def _add_link_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--zenoh-listen",
        type=_listen,
        default=Listen(),
        metavar="IP[:PORT[-PORT]]",
        help="where links to other machines listen, with two ports for each dataflow (default: the "
        f"address that leads to the coordinator, ports {FIRST_PORT}-{LAST_PORT}; one port stands "
        "for it and the next 99)",
    )
    add(
        "--links",
        choices=("tls", "plain"),
        default="tls",
        help="plain: do not encrypt messages between machines, for networks that are encrypted "
        "already (WireGuard, Tailscale, a cable); all machines must use the same (default: tls)",
    )
    add(
        "--i-know",
        action="store_true",
        help="allow --links plain on a public address, where others can read and forge messages",
    )
    add("--zenoh-no-multicast", action="store_true", help=argparse.SUPPRESS)  # never used
    for name in IGNORED:
        count = 0 if name == "--rt" else None
        add(name, action=_Ignored, nargs=count, metavar="VALUE", help=argparse.SUPPRESS)


def _listen(text: str) -> Listen:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def listen_options(options: argparse.Namespace) -> Listen:
    """Return where links listen. Raises LinkError."""
    listen: Listen = options.zenoh_listen
    if options.links == "tls":
        return listen
    listen = replace(listen, plain=True, public_ok=options.i_know)
    if listen.host is not None and not options.i_know:
        problem = plain_problem(listen.host)
        if problem is not None:
            raise LinkError(problem)
    logger.warning("links: plain: messages to and from other machines are not encrypted")
    return listen


def _machine_id(text: str) -> str:
    try:
        return parse_machine_id(text)
    except InvalidId as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"invalid label {pair!r}: expected key=value")
        if key in labels:
            raise argparse.ArgumentTypeError(f"label {key!r} is given twice")
        try:
            labels[parse_label(key, "label key")] = parse_label(value, "label value")
        except InvalidId as error:
            raise argparse.ArgumentTypeError(f"invalid label {pair!r}: {error}") from error
    return labels


def _run(options: argparse.Namespace) -> int:
    require_linux()
    reach = partial(endpoint, options.coordinator_addr, options.coordinator_port)
    os.environ[PORT_VARIABLE] = str(options.local_listen_port)
    reach()  # a bad address or token file is an error at the start, not a reason to retry
    # Locked until the process has ended: `dora cluster` waits for the lock.
    files = DaemonFiles(state_directory(options.machine_id, options.local_listen_port))
    agent_options = AgentOptions(
        machine_id=options.machine_id,
        labels=options.labels,
        base_dir=Path.cwd(),
        allow_shell=options.allow_shell_nodes,
        listen=listen_options(options),
        offline_after=options.offline_after,
        spare_runner=True,
    )
    anyio.run(_serve, agent_options, files, reach)
    return 0


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
