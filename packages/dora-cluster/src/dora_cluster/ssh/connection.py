"""Connections to machines through paramiko: direct, through jump hosts or through a command."""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from threading import Timer
from typing import Any

import paramiko
from paramiko.auth_strategy import AuthFailure

from dora_cluster.connection import FinishedCommand, Listener, Listeners, MachineConnection, shown
from dora_cluster.errors import NOT_ENDED, ConnectionLost, RemoteTimeout, Unreachable
from dora_cluster.ssh.host_keys import KnownHosts
from dora_cluster.ssh.login import Keys, reason, refusal
from dora_cluster.ssh.settings import HostSettings, settings_for
from dora_config.access import split_address
from dora_config.cluster.models import Machine

_FAILURES = (paramiko.SSHException, OSError, EOFError)
_MAX_JUMPS = 8
"""Most jump hosts of one connection; more indicate a cycle in the settings."""
_OPEN_TIMEOUT = 10.0
"""Seconds for the answer to the request for a channel."""
_END_TIMEOUT = 2.0
"""Seconds for a failed `ProxyCommand` to end."""
_WINDOW = 1 << 22
"""Bytes that a host may send before they are read."""
_OUTPUT_BYTES = 1 << 16
"""Bytes received at a time, and kept at the end of output that a listener gets."""
_KEPT_LINES = 8
"""Last lines of a failed `ProxyCommand` in an error."""

# paramiko also raises the errors that it logs.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


def connect(machine: Machine) -> MachineConnection:
    """Log in; raises SshError (Unreachable, HostKeyRefused, LoginRefused) and ConfigProblem."""
    settings = settings_for(machine.host, machine.user, machine.port)
    with ExitStack() as stack:
        transport = _open(machine.label, settings, machine.identity_file, stack, _MAX_JUMPS)
        return SshConnection(machine.label, transport, stack.pop_all())


class SshConnection(MachineConnection):
    """A connection with its jump hosts; ``close`` closes them all."""

    def __init__(self, name: str, transport: paramiko.Transport, closing: ExitStack) -> None:
        super().__init__(name)
        self._transport = transport
        self._closing = closing

    def close(self) -> None:
        self._closing.close()

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        deadline = time.monotonic() + timeout
        with ExitStack() as stack:
            try:
                channel = self._transport.open_session(timeout=_OPEN_TIMEOUT)
                channel.exec_command(shlex.join(argv))
            except _FAILURES as error:
                raise self._lost(error) from error
            readers = stack.enter_context(ThreadPoolExecutor(2))
            stack.callback(channel.close)
            streams = zip((channel.recv, channel.recv_stderr), listeners, strict=True)
            outputs = [readers.submit(_take, *stream, channel.close) for stream in streams]
            late = Timer(timeout, channel.close)
            late.daemon = True
            late.start()
            stack.callback(late.cancel)
            for piece in pieces:
                try:
                    channel.sendall(piece)
                except _FAILURES:
                    break  # the command ended early; its exit code follows
            with suppress(*_FAILURES):
                channel.shutdown_write()
            code = channel.recv_exit_status()
            # processes in the background may keep the output open until the time limit
            done = FinishedCommand(code, *(output.result() for output in outputs))
        if code != -1:
            return done
        if not self._transport.is_active() or self._transport.saved_exception is not None:
            raise self._lost()
        if time.monotonic() >= deadline:
            raise RemoteTimeout(self.name, f"`{shown(argv)}` {NOT_ENDED}")
        raise self._failed(argv, done)

    def _lost(self, error: BaseException | None = None) -> ConnectionLost:
        cause = reason(self._transport.get_exception() or error or EOFError())
        sentence = f"the connection broke: {cause}; check that machine and its network, then run "
        return ConnectionLost(self.name, f"{sentence}this command again")


def _take(
    receive: Callable[[int], bytes], listener: Listener | None, end: Callable[[], None]
) -> str:
    """Return the output of one stream; only its end if a listener gets it."""
    kept = bytearray()
    while data := receive(_OUTPUT_BYTES):
        kept += data
        if listener is not None:
            try:
                listener(data)
            except OSError:
                end()  # otherwise the command would block on its output
                raise
            del kept[:-_OUTPUT_BYTES]
    return kept.decode("utf-8", "surrogateescape")


def _open(
    machine: str, settings: HostSettings, identity_file: str | None, stack: ExitStack, jumps: int
) -> paramiko.Transport:
    """Connect and log in until ``stack`` is closed; ``jumps``: how many jump hosts there may be."""
    limit = settings.connect_timeout
    way = f"the server at {settings.host} port {settings.port} is not a working SSH server"
    last_lines: Callable[[], str] = str
    link: Any
    if settings.proxy_command:
        way = f"its ProxyCommand `{settings.proxy_command}` did not reach an SSH server"
        link, last_lines = _run_proxy(settings.proxy_command, stack)
    elif settings.proxy_jump:
        link = _jump(machine, settings, stack, jumps)
    else:
        link = _dial(machine, settings)
    stack.callback(link.close)
    known = KnownHosts(machine, settings)

    def transport(sock: Any, **options: Any) -> paramiko.Transport:
        made = paramiko.Transport(sock, default_window_size=_WINDOW, **options)
        known.prefer_known(made.get_security_options())
        return made

    client = stack.enter_context(paramiko.SSHClient())
    client.set_missing_host_key_policy(known)
    try:
        with closing(Keys(settings, identity_file)) as keys:
            client.connect(
                settings.host, settings.port, timeout=limit, banner_timeout=limit,
                auth_timeout=limit, sock=link, transport_factory=transport, auth_strategy=keys,
            )  # fmt: skip
    except AuthFailure as failure:
        raise refusal(machine, settings, failure) from None
    except _FAILURES as error:
        raise Unreachable(machine, f"{way}: {reason(error)}{last_lines()}") from error
    opened = client.get_transport()
    assert opened is not None
    opened.set_keepalive(settings.alive_interval)
    return opened


def _dial(machine: str, settings: HostSettings) -> socket.socket:
    try:
        link = socket.create_connection((settings.host, settings.port), settings.connect_timeout)
    except OSError as error:
        raise Unreachable(
            machine,
            f"cannot connect to {settings.host} port {settings.port}: {reason(error)}; check the "
            "address, that the machine is on, and that sshd runs there",
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # also limits unacknowledged keepalive messages
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.silence * 1000)
    return link


def _run_proxy(command: str, stack: ExitStack) -> tuple[socket.socket, Callable[[], str]]:
    """Return the near end of a command's input and output, and what returns its last errors.

    `ProxyCommand` of paramiko has no shell, and spins when the command has ended.
    """
    near, far = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
    stack.callback(errors.close)
    words = ["sh", "-c", f"exec {command}"]
    with far:
        process = subprocess.Popen(words, stdin=far.fileno(), stdout=far.fileno(), stderr=errors)
    stack.enter_context(process)
    stack.callback(process.kill)

    def last_lines() -> str:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_TIMEOUT)  # a process that has failed is about to end
        errors.seek(0)
        lines = errors.read().decode(errors="replace").splitlines()[-_KEPT_LINES:]
        return "".join(f"\n  {line}" for line in lines)

    return near, last_lines


def _jump(machine: str, settings: HostSettings, stack: ExitStack, jumps: int) -> paramiko.Channel:
    """Return a channel from the last jump host."""
    if not jumps:
        raise Unreachable(machine, f"ProxyJump {settings.proxy_jump!r} leads in a circle")
    before, _, last = settings.proxy_jump.rpartition(",")
    user, _, address = last.strip().removeprefix("ssh://").rpartition("@")
    host, port = split_address(address)
    through = settings_for(host, user, port)
    if before:
        through.proxy_jump, through.proxy_command = before, ""
    name = f"{machine}, on the way through {last.strip()}"
    transport = _open(name, through, None, stack, jumps - 1)
    place, limit = (settings.host, settings.port), settings.connect_timeout
    try:
        return transport.open_channel("direct-tcpip", place, ("127.0.0.1", 0), timeout=limit)
    except _FAILURES as error:
        to = f"{settings.host} port {settings.port}"
        sentence = f"{through.host} (ProxyJump) cannot reach {to}: {reason(error)}"
        raise Unreachable(machine, sentence) from error
