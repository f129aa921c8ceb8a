"""Command `dora coordinator`: arguments, listening sockets, signals."""

from __future__ import annotations

import dora_config.quick_imports  # noqa: F401

# isort: split
import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer
from pydantic import ValidationError

from dora_config.access import DEFAULT_HOST, DEFAULT_PORT, Endpoint, state_dir
from dora_config.access_token import Token
from dora_config.errors import DoraError, exit_code
from dora_config.file_store import FileStore
from dora_config.history.file import HistoryFile
from dora_config.program import HELP, command_of, run
from dora_config.protocol.envelope import ProgramVersion
from dora_config.service_logging import log_to_stderr
from dora_config.streams import finish
from dora_coordinator._version import __version__
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.files import CodeFiles
from dora_coordinator.io.http_server import HttpServer
from dora_coordinator.io.limits import PendingConnections, is_loopback
from dora_coordinator.io.listening import ServerCertificate, serve as serve_connections
from dora_coordinator.io.metrics import Telemetry
from dora_coordinator.io.server import create_application
from dora_coordinator.io.service import Service
from dora_coordinator.io.store import MemoryStore, SqliteStore, Store, StoreError, open_store
from dora_coordinator.io.succession import (
    Restoration,
    SuccessionFile,
    begin,
    copy_of,
    restore,
)
from dora_coordinator.io.token_file import TokenFile, given_token
from dora_coordinator.settings import Settings, parse_setting
from dora_coordinator.state.tokens import Accepted

OPEN_MAX: Final = 10240
"""Highest limit of open files that setrlimit(2) of macOS accepts."""
SPARE_FILES: Final = 64
"""Open files needed in addition to connections: store, libraries, listening sockets."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds to send the last messages to clients and daemons."""

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: a whole fleet reconnects after a restart."""

logger = logging.getLogger("dora.coordinator")


class CoordinatorError(DoraError):
    """The coordinator cannot start; ``str()`` contains the remedy."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line."""

    interfaces: tuple[str, ...]
    port: int
    store: str
    recreate_store: bool
    no_auth: bool
    open_to_network: bool
    quiet: bool


Interfaces = Annotated[
    list[str] | None,
    typer.Option(
        "--interface",
        metavar="IP",
        help="Address to listen on (default: 127.0.0.1; 0.0.0.0 for all); repeatable.",
    ),
]
StoreChoice = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="redb|memory|redb:PATH",
        show_default=False,
        help="Where dataflows are stored (default: a file in your state directory).",
    ),
]
CopyState = Annotated[bool, typer.Option("--copy", hidden=True)]
"""Print a copy of the state, encrypted with the token on standard input, for `dora cluster
promote`."""
RestoreState = Annotated[bool, typer.Option("--restore", hidden=True)]
"""Install the copy of a state on standard input, for `dora cluster promote`."""
SettingPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a limit or a time, for example max_connections=8000; repeatable.",
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT, SIGTERM or `dora down`; return the exit code."""
    return run(command(), arguments, "dora coordinator")


def command() -> Any:
    """Return the command `dora coordinator`."""
    return command_of("coordinator", _coordinator, context_settings=dict(HELP))


def _coordinator(
    interface: Interfaces = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="0: any free port.")
    ] = DEFAULT_PORT,
    store: StoreChoice = "redb",
    recreate_store: Annotated[
        bool,
        typer.Option("--recreate-store", help="Put the store aside and start with an empty one."),
    ] = False,
    auth: Annotated[bool, typer.Option("--auth", help="Require the token (the default).")] = False,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Allow anyone who reaches the port to run programs."),
    ] = False,
    open_to_network: Annotated[
        bool,
        typer.Option(
            "--open-to-network", help="Allow --no-auth on an address that is not loopback."
        ),
    ] = False,
    copy: CopyState = False,
    install_copy: RestoreState = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
    setting: SettingPairs = None,
) -> None:
    """Place dataflows on daemons and supervise them."""
    log_to_stderr(quiet=quiet)

    def serve() -> int:
        settings = _settings(setting or ())
        if install_copy:
            return _restore(port)
        if copy:
            return _copy(port)
        options = Options(
            _interfaces(interface), port, store, recreate_store, no_auth, open_to_network, quiet
        )
        return _run(options, settings)

    raise typer.Exit(exit_code(serve))


def _run(options: Options, settings: Settings) -> int:
    interfaces = options.interfaces
    state = state_dir() / "coordinator"
    _require_safe(options)
    authority = Authority(state / "authority")
    given = None if options.no_auth else given_token(authority)  # before clients can connect
    store = open_store(options.store, state / "store.sqlite3", recreate=options.recreate_store)
    try:
        with contextlib.ExitStack() as stack:
            port = options.port
            listeners = []
            for interface in interfaces:
                opened = _given_listener(interface, port) or _listen(
                    interface, port, apart=len(interfaces) > 1
                )
                listeners.append(stack.enter_context(opened))
                port = listeners[0].getsockname()[1]
            settings = _fit_open_files(settings)
            party = ProgramVersion(program="coordinator", release=__version__)
            tokens = None
            if given is not None:
                path = state / f"tokens-{port}.json"
                tokens = TokenFile(given, authority, path, interfaces, port)
            place = SuccessionFile(state / f"succession-{port}.json")
            succession = place, begin(place, store, authority, recreate=options.recreate_store)
            history = _history(store)
            service = Service(settings, party, store, authority, tokens, history, succession)
            code = CodeFiles(
                FileStore(state / "files"),
                max_bytes=settings.max_code_bytes,
                fetch=service.daemons.fetch_code,
            )
            application = create_application(service, code, tokens=tokens)
            logger.info("store: %s", store.name)
            if not options.quiet:
                _announce(port)
            certificate = ServerCertificate(authority)
            gc.freeze()  # nothing allocated until now is ever freed
            anyio.run(_serve, service, application, listeners, certificate)
    finally:
        store.close()
    return 0


def _copy(port: int) -> int:
    print(copy_of(state_dir(), port, sys.stdin.read().strip()).model_dump_json())
    return 0


def _restore(port: int) -> int:
    try:
        given = Restoration.model_validate_json(sys.stdin.buffer.read())
    except ValidationError as error:
        raise CoordinatorError("standard input is not a copy of a coordinator's state") from error
    print(restore(state_dir(), port, given).model_dump_json())
    return 0


def _history(store: Store) -> HistoryFile | None:
    """Return the history file beside a durable store."""
    if not isinstance(store, SqliteStore):
        return None
    return HistoryFile(Path(f"{store.name}.history"))


def _interfaces(given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the addresses to listen on, each once."""
    default = os.environ.get("DORA_COORDINATOR_INTERFACE", "127.0.0.1")
    return tuple(dict.fromkeys(given or [default]))


def _announce(port: int) -> None:
    """Print the port; output errors are ignored."""
    with contextlib.suppress(ValueError):  # closed
        print(f"Listening on port {port}")
    finish()


def _settings(pairs: Sequence[str]) -> Settings:
    given: dict[str, Any] = {}
    for variable, name in (
        ("DORA_SPAWN_RESULT_TIMEOUT_SECS", "start_timeout"),
        ("DORA_BUILD_RESULT_TIMEOUT_SECS", "build_timeout"),
    ):
        if (timeout := os.environ.get(variable)) is not None:
            parse_setting(given, f"{name}={timeout}")
    for pair in pairs:
        parse_setting(given, pair)
    return Settings(**given)


def _require_safe(options: Options) -> None:
    interfaces = options.interfaces
    if not options.no_auth:
        return
    named = " and ".join(interfaces)
    if not all(is_loopback(one) for one in interfaces) and not options.open_to_network:
        raise CoordinatorError(
            f"--no-auth on {named} lets anyone on the network run programs on all your machines; "
            "omit it (dora finds the token of this account), or add --open-to-network"
        )
    logger.warning(
        "NO AUTHENTICATION: anyone who reaches %s can run programs on every connected machine",
        named,
    )


def _given_listener(interface: str, port: int) -> socket.socket | None:
    """Return standard input if it is a socket that listens there: `dora up` opens it."""
    try:
        given = socket.socket(fileno=0)
    except OSError:
        return None
    listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listens and given.getsockname()[:2] == (interface, port):
        return given
    given.detach()
    return None


def _listen(interface: str, port: int, *, apart: bool) -> socket.socket:
    """Listen on an address; ``apart``: `::` is IPv6 only; another listener accepts IPv4."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            interface, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # with the protocol, without which asyncio does not set TCP_NODELAY on connections
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CoordinatorError(
            f"--interface {interface}: not an address of this machine ({error})"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, apart)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CoordinatorError(
            f"cannot listen on {interface} port {port}: {error.strerror}; if a coordinator is "
            "already running, choose another --port, or 0 for any"
        ) from error
    return listener


def _fit_open_files(settings: Settings) -> Settings:
    """Raise the limit of open files; if it stays too low, allow fewer connections."""
    needed = settings.max_connections + settings.max_pending_connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return settings
    wanted = needed if hard == unlimited else min(needed, hard)
    if sys.platform == "darwin":
        wanted = min(wanted, OPEN_MAX)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft >= needed:
        return settings
    possible = max(2, soft - SPARE_FILES)
    pending = min(settings.max_pending_connections, max(1, possible // 4))
    fitting = replace(settings, max_connections=possible - pending, max_pending_connections=pending)
    logger.warning(
        "the limit of open files (%d) allows only %d of %d connections; raise it with ulimit -n",
        soft,
        fitting.max_connections,
        settings.max_connections,
    )
    return fitting


async def _serve(
    service: Service,
    application: Any,
    listeners: list[socket.socket],
    certificate: ServerCertificate,
) -> None:
    async with anyio.create_task_group() as tasks:
        work = anyio.CancelScope()

        async def watch_signals() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    logger.info("%s: ending; running nodes continue", signal.Signals(number).name)
                    work.cancel()
                    return

        tasks.start_soon(watch_signals)
        tasks.start_soon(Telemetry(service).run)
        failure = await serve(service, application, listeners, certificate, work)
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def serve(
    service: Service,
    application: Any,
    listeners: list[socket.socket],
    certificate: ServerCertificate,
    work: anyio.CancelScope,
) -> StoreError | None:
    """Serve until a client ends the coordinator or ``work`` is cancelled.

    Return the error of a store that cannot be read.
    """
    settings = service.settings
    server = HttpServer(application, max_message=settings.max_message_bytes)
    failure: StoreError | None = None
    async with anyio.create_task_group() as tasks:

        async def accept() -> None:
            with accepting:
                await serve_connections(
                    listeners,
                    server,
                    certificate,
                    PendingConnections(settings.max_pending_connections),
                )
            for listener in listeners:
                listener.close()

        accepting = anyio.CancelScope()
        tasks.start_soon(accept)
        tasks.start_soon(service.carry_out_steps)
        tasks.start_soon(service.standbys.send_copies)
        tasks.start_soon(service.standbys.watch)
        with work:
            try:
                await service.run()
            except StoreError as error:
                failure = error
        await service.flush(within=FLUSH_TIMEOUT)
        accepting.cancel()
        await server.end()
        tasks.cancel_scope.cancel()
    return failure


@contextlib.asynccontextmanager
async def private_coordinator(folder: Path) -> AsyncIterator[Endpoint]:
    """Run a coordinator for the clients and daemons of this process, with its state in memory.

    ``folder`` is empty and of this user only.
    """
    authority = Authority(folder / "authority")
    token = Token(secrets.token_hex(32), authority.sha256)
    party = ProgramVersion(program="coordinator", release=__version__)
    settings = Settings(heartbeat_interval=1.0, max_connections=512, max_pending_connections=128)
    service = Service(settings, party, MemoryStore(), authority)
    code = CodeFiles(
        FileStore(folder / "files"),
        max_bytes=settings.max_code_bytes,
        fetch=service.daemons.fetch_code,
    )
    application = create_application(service, code, tokens=_OneToken(token))
    certificate = ServerCertificate(authority)
    with _listen(DEFAULT_HOST, 0, apart=False) as listener:
        async with anyio.create_task_group() as tasks:
            work = anyio.CancelScope()
            tasks.start_soon(serve, service, application, [listener], certificate, work)
            yield Endpoint(DEFAULT_HOST, listener.getsockname()[1], str(token))
            tasks.cancel_scope.cancel()


class _OneToken:
    """A token that is never replaced."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def check(self, given: str) -> Accepted | None:
        return Accepted(current=True) if self._token.has_secret(given) else None


if __name__ == "__main__":
    sys.exit(main())
