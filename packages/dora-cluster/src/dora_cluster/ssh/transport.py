"""Connections through paramiko, which no other module imports: transport, host key, login."""

from __future__ import annotations

import base64
import logging
import os
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.agent import AgentSSH
from paramiko.packet import Packetizer

from dora_cluster.ssh.client_config import HostSettings, settings_for
from dora_cluster.ssh.errors import ConnectionLost, LoginRefused, Unreachable
from dora_cluster.ssh.host_keys import Key, check_host_key, known_keys, preferred
from dora_config.access import split_address

CONNECT_TIMEOUT = 10.0
"""Seconds for each step of a connection: TCP, greeting, keys."""
_MAX_JUMPS = 8
_SILENT_INTERVALS = 3
"""Intervals without an answer after which a connection is closed."""
_WINDOW = 1 << 22
_PACKET = 1 << 15
_AFTER_BREAK = "check that machine and its network, then run this command again"
_LOCKED = "needs its passphrase, and dora does not prompt for it; unlock it with ssh-add"

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

_KEPT_LINES = 8
_END_TIMEOUT = 2.0
_MAX_LINE = 4096


class ProxyCommand:
    """Runs until ``stack`` is closed; ``link`` is the near end of its input and output."""

    def __init__(self, command: str, stack: ExitStack) -> None:
        self.command = command
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.link, theirs = socket.socketpair()
        stack.callback(self.link.close)
        with theirs:
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        stack.callback(self._end)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def last_lines(self) -> str:
        """Return its last lines on stderr, indented."""
        self._listener.join(_END_TIMEOUT)  # a process that has failed is about to end
        return "".join(f"\n  {line}" for line in list(self._lines))

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            while line := stderr.readline(_MAX_LINE):
                if text := line.decode(errors="replace").strip():
                    self._lines.append(text)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(_END_TIMEOUT)


class Transport:
    """An authenticated connection with its jump hosts; ``close`` closes them all."""

    def __init__(self, machine: str, transport: paramiko.Transport, closing: ExitStack) -> None:
        self.machine = machine
        self._transport = transport
        self._closing = closing

    def execute(self, command: str) -> CommandChannel:
        """Start a command in the login shell there; raises ConnectionLost."""
        try:
            channel = self._transport.open_session(window_size=_WINDOW, timeout=CONNECT_TIMEOUT)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.lost(error) from error
        return CommandChannel(channel)

    def lost(self, error: BaseException | None = None) -> ConnectionLost:
        """Return the error for a broken connection."""
        reason = self._transport.get_exception() or error
        cause = _reason(reason) if reason is not None else "the other side closed it"
        return ConnectionLost(self.machine, f"the connection broke: {cause}; {_AFTER_BREAK}")

    @property
    def broken(self) -> bool:
        # the exception is set before the transport becomes inactive
        return not self._transport.is_active() or self._transport.saved_exception is not None

    def close(self) -> None:
        self._closing.close()


class CommandChannel:
    """Input, output and end of one remote command."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def write(self, data: bytes, timeout: float) -> None:
        """Write all data; raises TimeoutError, and BrokenPipeError if the command does not read."""
        deadline = time.monotonic() + timeout
        for begin in range(0, len(data), _PACKET):
            rest = data[begin : begin + _PACKET]
            while rest:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._channel.settimeout(left)
                rest = rest[self._send(rest) :]

    def _send(self, data: bytes) -> int:
        try:
            sent = self._channel.send(data)
        except TimeoutError:
            raise
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError(str(error)) from error
        if not sent:
            raise BrokenPipeError("the channel is closed")
        return sent

    def end_input(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def read(self, *, errors: bool = False) -> Iterator[bytes]:
        """Yield the output on one of the two streams until its end; for a separate thread."""
        receive = self._channel.recv_stderr if errors else self._channel.recv
        while True:
            try:
                data = receive(1 << 16)
            except TimeoutError:  # the channel has one time limit, that of the writer
                continue
            except OSError:
                return
            if not data:
                return
            yield data

    def wait(self, timeout: float) -> int | None:
        """Return the exit code, -1 if the connection broke; None after the timeout."""
        if not self._channel.status_event.wait(max(timeout, 0.0)):
            return None
        return self._channel.exit_status

    def close(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()


def open_transport(
    machine: str,
    host: str,
    user: str | None,
    port: int | None,
    identity_file: str | None,
    silence: float,
) -> Transport:
    """Connect and log in; raises SshError (Unreachable, HostKeyRefused, LoginRefused)."""
    with ExitStack() as stack:
        settings = settings_for(host, user, port)
        transport = _open(machine, settings, identity_file, silence, stack, _MAX_JUMPS)
        return Transport(machine, transport, stack.pop_all())


def _open(
    machine: str,
    settings: HostSettings,
    identity_file: str | None,
    silence: float,
    stack: ExitStack,
    jumps_left: int,
) -> paramiko.Transport:
    command = ProxyCommand(settings.proxy_command, stack) if settings.proxy_command else None
    link = command.link if command else _dial(machine, settings, silence, stack, jumps_left)
    transport = paramiko.Transport(
        link, default_window_size=_WINDOW, packetizer_class=_CountingPacketizer
    )
    stack.callback(_close, transport)
    transport.banner_timeout = transport.auth_timeout = CONNECT_TIMEOUT
    known = known_keys(settings)
    options = transport.get_security_options()
    options.key_types = preferred(known.kinds, tuple(options.key_types))
    where = f"{settings.host} port {settings.port}"
    try:
        transport.start_client(timeout=CONNECT_TIMEOUT)
        server_key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        if command is not None:
            raise Unreachable(
                machine,
                f"its ProxyCommand `{command.command}` did not reach an SSH server: "
                f"{_reason(error)}{command.last_lines()}",
            ) from error
        raise Unreachable(
            machine, f"the server at {where} is not a working SSH server: {_reason(error)}"
        ) from error
    key = Key(server_key.get_name(), server_key.asbytes())
    check_host_key(machine, settings, known, key)
    _log_in(machine, settings, identity_file, transport)
    _watch(transport, max(1.0, silence / _SILENT_INTERVALS), stack)
    return transport


def _close(transport: paramiko.Transport) -> None:
    transport.close()
    with suppress(RuntimeError):
        transport.join(5)


# ----------------------------------------------------------------------- silence


class _CountingPacketizer(Packetizer):
    received = 0
    """Messages from the other side."""

    def read_message(self) -> tuple[int, paramiko.Message]:
        message: tuple[int, paramiko.Message] = super().read_message()
        self.received += 1
        return message


def _watch(transport: paramiko.Transport, interval: float, stack: ExitStack) -> None:
    """Request an answer in each interval until ``stack`` is closed."""
    ended = threading.Event()
    watch = threading.Thread(target=close_if_silent, args=(transport, interval, ended), daemon=True)
    stack.callback(watch.join, 5)
    stack.callback(ended.set)
    watch.start()


def close_if_silent(transport: paramiko.Transport, interval: float, ended: threading.Event) -> None:
    """Close a connection from which nothing arrives in several intervals, until ``ended``.

    Intervals are counted, so that a suspended command reads what has arrived before it gives up.
    """
    request: threading.Thread | None = None
    before, silent = -1, 0
    while not ended.wait(interval) and transport.is_active():
        received: int = cast(_CountingPacketizer, transport.packetizer).received
        silent = silent + 1 if received == before else 0
        before = received
        if silent == _SILENT_INTERVALS:
            transport.saved_exception = TimeoutError(f"no answer within {silent * interval:g} s")
            transport.close()
            return
        if request is None or not request.is_alive():
            request = threading.Thread(target=_request_answer, args=(transport,), daemon=True)
            request.start()


def _request_answer(transport: paramiko.Transport) -> None:
    """Wait until the other side answers a request that every server must answer."""
    with suppress(paramiko.SSHException, OSError, EOFError):
        transport.global_request("keepalive@openssh.com")


# ----------------------------------------------------------------------- the wire below


def _dial(
    machine: str, settings: HostSettings, silence: float, stack: ExitStack, jumps_left: int
) -> Any:
    if settings.proxy_jump is not None:
        return _through_jump(machine, settings, silence, stack, jumps_left)
    where = f"{settings.host} port {settings.port}"
    try:
        link = socket.create_connection((settings.host, settings.port), CONNECT_TIMEOUT)
    except TimeoutError as error:
        raise Unreachable(
            machine,
            f"no answer from {where} within {CONNECT_TIMEOUT:g} s; check that the machine is on "
            "and that the address is right",
        ) from error
    except socket.gaierror as error:
        raise Unreachable(machine, f"host name {settings.host!r} is not known here") from error
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        remedy = "; check that sshd runs there" if refused else ""
        raise Unreachable(
            machine, f"cannot connect to {where}: {error.strerror or error}{remedy}"
        ) from error
    stack.callback(link.close)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # earlier than `close_if_silent` for sent data
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))
    return link


def _through_jump(
    machine: str, settings: HostSettings, silence: float, stack: ExitStack, jumps_left: int
) -> Any:
    assert settings.proxy_jump is not None
    if not jumps_left:
        raise Unreachable(machine, f"ProxyJump {settings.proxy_jump!r} leads in a circle")
    *before, last = settings.proxy_jump.split(",")
    user, host, port = _parse_jump(machine, last.strip())
    through = settings_for(host, user, port)
    if before:
        through = replace(through, proxy_jump=",".join(before), proxy_command=None)
    name = f"{machine}, on the way through {last.strip()}"
    transport = _open(name, through, None, silence, stack, jumps_left - 1)
    try:
        channel = transport.open_channel(
            "direct-tcpip",
            (settings.host, settings.port),
            ("127.0.0.1", 0),
            window_size=_WINDOW,
            timeout=CONNECT_TIMEOUT,
        )
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Unreachable(
            machine,
            f"{through.host} (ProxyJump) cannot reach {settings.host} port {settings.port}: "
            f"{_reason(error)}",
        ) from error
    stack.callback(channel.close)
    return channel


def _parse_jump(machine: str, text: str) -> tuple[str | None, str, int | None]:
    """``[ssh://][user@]host[:port]``"""
    rest = text.removeprefix("ssh://")
    user, at, rest = rest.rpartition("@")
    host, port = split_address(rest)
    if not host or (port and not port.isdigit()):
        raise Unreachable(machine, f"ProxyJump {text!r}: expected [user@]host[:port]")
    return (user if at else None), host, (int(port) if port else None)


# ----------------------------------------------------------------------- our keys


class _Agent(AgentSSH):
    """The agent at a socket; without keys if nothing listens there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(CONNECT_TIMEOUT)
            link.connect(path)
            self._connect(link)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException):
            link.close()

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def _log_in(
    machine: str, settings: HostSettings, identity_file: str | None, transport: paramiko.Transport
) -> None:
    tried: list[str] = []
    with ExitStack() as stack:
        for label, key in _keys(settings, identity_file, tried, stack):
            try:
                missing = transport.auth_publickey(settings.user, key)
            except paramiko.BadAuthenticationType as error:
                allowed = ", ".join(error.allowed_types)
                raise LoginRefused(
                    machine, f"the server accepts no keys from {settings.user}, only: {allowed}"
                ) from error
            except paramiko.AuthenticationException:
                tried.append(f"{label}: refused")
            except (paramiko.SSHException, OSError, EOFError) as error:
                tried.append(f"{label}: {_reason(error)}")
                if not transport.is_active():
                    tried.append(
                        "then the server disconnected (after too many keys? Set IdentityFile and "
                        "IdentitiesOnly in ~/.ssh/config)"
                    )
                    break
            else:
                if missing:
                    raise LoginRefused(
                        machine,
                        f"it accepted {label} but also requires {', '.join(missing)}; dora does "
                        "not prompt for passwords",
                    )
                return
    listed = "".join(f"\n  {line}" for line in tried) or "\n  none: this account has no key"
    raise LoginRefused(
        machine,
        f"{settings.user} may not log in with the keys that were tried:{listed}\n"
        f"  Put a public key of yours there (ssh-copy-id -p {settings.port} "
        f"{settings.user}@{settings.host}), or check `user`",
    )


def _keys(
    settings: HostSettings, identity_file: str | None, tried: list[str], stack: ExitStack
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield a label and a key, in the order in which OpenSSH tries them."""
    files = list(settings.identity_files)
    given = settings.identities_given or identity_file is not None
    if identity_file is not None:
        path = identity_file
        with suppress(RuntimeError):  # of an unknown account
            path = str(Path(identity_file).expanduser())
        files = [path, *(files if settings.identities_given else [])]
    publics = {path: blob for path in files if (blob := _public_blob(path)) is not None}
    agent_keys = _agent_keys(settings, stack)
    listed = [key for key in agent_keys if key.asbytes() in publics.values()]
    others = [key for key in agent_keys if key not in listed]
    for key in [*listed, *([] if settings.identities_only else others)]:
        yield f"a key of the agent ({key.comment or key.get_name()})", key
    in_agent = {key.asbytes() for key in agent_keys}
    for path in files:
        if publics.get(path) in in_agent:
            continue
        loaded = _load(path)
        if isinstance(loaded, paramiko.PKey):
            yield path, loaded
        elif Path(path).exists() or given:
            tried.append(f"{path}: {loaded}")


def _agent_keys(settings: HostSettings, stack: ExitStack) -> list[Any]:
    path = settings.identity_agent or os.environ.get("SSH_AUTH_SOCK")
    if not path or path == "none":
        return []
    agent = _Agent(path)
    stack.callback(agent.close)
    return list(agent.get_keys())


def _public_blob(path: str) -> bytes | None:
    """Return the public key from the file beside a private key."""
    with suppress(OSError, ValueError, IndexError):
        return base64.b64decode(Path(f"{path}.pub").read_text().split()[1])
    return None


_loading = threading.Lock()


def _load(path: str) -> paramiko.PKey | str:
    """Return the private key, or why it cannot be used."""
    try:
        with _loading:  # threads of several machines share the keys
            return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return error.strerror or str(error)
    except (paramiko.PasswordRequiredException, TypeError):
        return _LOCKED
    except Exception as error:  # noqa: BLE001 - paramiko and cryptography raise many kinds
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            return _LOCKED
        return f"not a usable key: {_reason(error)}"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "the other side closed it"
    return str(error) or type(error).__name__
