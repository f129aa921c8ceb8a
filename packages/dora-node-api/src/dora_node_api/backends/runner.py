"""Backend of a node that is connected to a runner."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dora_node_api import _version
from dora_node_api._version import __version__
from dora_node_api.backends.inputs import Inputs
from dora_node_api.backends.outputs import Outputs
from dora_node_api.errors import (
    ControlClosed,
    ControlError,
    InvalidData,
    NodeClosed,
    SetUpError,
    StartCancelled,
)
from dora_node_api.protocol.connection import ConnectionToRunner
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.extensions import Extensions
from dora_node_api.protocol.frames import ReceivedFrame
from dora_node_api.protocol.messages import (
    AddRoute,
    Go,
    Hello,
    Message,
    Refused,
    RemoveRoute,
    RestoreState,
    SaveState,
    SourceSegment,
    StopNode,
    Welcome,
)

if TYPE_CHECKING:
    from dora_node_api.transport.producer.blocks import SampleMemory

_holding = threading.RLock()
"""Guards the holders of connections; reentrant because a finalizer may close one at any point."""


def connect(path: str, node_id: str, incarnation: int | None) -> RunningBackend:
    """Connect to the runner at `path` and wait until the dataflow runs.

    Raises SetUpError if the runner refuses, is gone, or ends before the dataflow has started.
    """
    try:
        control = ControlSocket.connect(path)
    except OSError as error:
        raise SetUpError(
            f"node `{node_id}` cannot reach its runner at {path}: {error}."
            " Has the dataflow ended already?"
        ) from error
    try:
        return _shake_hands(control, path, node_id, incarnation)
    except ControlClosed as error:
        control.close()
        raise SetUpError(
            f"node `{node_id}`: the runner ended, or closed the connection, before the dataflow had"
            " started"
        ) from error
    except ControlError as error:
        control.close()
        raise SetUpError(
            f"node `{node_id}`: the answer at {path} does not follow the protocol of"
            f" dora_node_api {__version__}: {error}"
        ) from error
    except BaseException:
        control.close()
        raise


def _shake_hands(
    control: ControlSocket, path: str, node_id: str, incarnation: int | None
) -> RunningBackend:
    control.send(
        Hello(
            node_id=node_id,
            incarnation=incarnation,
            pid=os.getpid(),
            version=__version__,
            package=os.path.dirname(_version.__file__),  # noqa: PTH120 - pathlib is slow to import
        )
    )
    received = control.receive()
    match received:
        case ReceivedFrame(Welcome() as welcome, descriptors):
            backend = RunningBackend(control, welcome, descriptors, path=path)
        case ReceivedFrame(Refused() as refused):
            raise _error(refused, incarnation)
        case other:
            raise ControlError(f"expected Welcome, not {other}")
    try:
        backend.wait_for_start(control, incarnation)
    except BaseException:
        backend.close()
        raise
    return backend


def _error(refused: Refused, incarnation: int | None) -> SetUpError:
    # A dynamic node may run in a shell or notebook, which must not end.
    quiet = refused.cancelled and incarnation is not None
    return (StartCancelled if quiet else SetUpError)(refused.message)


class RunningBackend(Inputs, Outputs):
    """The connection to a runner, which several nodes of a process may hold."""

    def __init__(
        self,
        control: ControlSocket,
        welcome: Welcome,
        descriptors: Sequence[int],
        *,
        path: str = "",
    ) -> None:
        board, *ends = descriptors
        segment = ends.pop() if welcome.segment_size else -1
        self.config = welcome.config
        self._path = path
        self._holders = 1
        self._closed = False
        self._state: Any = None
        """State that the former process saved."""
        connection = ConnectionToRunner(control, welcome, board, segment)
        self.start_inputs(connection)
        self.start_outputs(connection)
        self.connect_inputs(welcome.queues, ends)

    def wait_for_start(self, control: ControlSocket, incarnation: int | None) -> None:
        """Take in the routes until Go. An earlier STOP becomes the first event."""
        while True:
            received = control.receive()
            if received is None:
                continue
            match received.message:
                case Go(epoch):
                    self.session.start(epoch)
                    # Frames received with Go do not make the socket readable again.
                    self._connection.pump()
                    return
                case Refused() as refused:
                    raise _error(refused, incarnation)
                case RestoreState(form, size) if len(received.descriptors) == 1:
                    self._take_state(received.descriptors[0], form, size)
                case SourceSegment() as segment if len(received.descriptors) == 1:
                    self._connection.add_segment(segment, received.descriptors[0])
                case AddRoute(output, spec):
                    self._connection.add_route(output, spec, received.descriptors)
                case RemoveRoute(queue):
                    self._connection.sender.remove_route(queue)
                case StopNode(restarts=restarts):
                    if not restarts:
                        self._connection.halt()
                    self.apply(received)
                    return
                case _:
                    self.apply(received)

    # --- state of the former process -------------------------------------------------------------

    def _take_state(self, descriptor: int, form: str, size: int) -> None:
        from dora_node_api.data.saved_state import read_state

        try:
            self._state = read_state(descriptor, form, size)
        except InvalidData as error:
            self._connection.warn(f"the state of the former process is lost: {error}")
        finally:
            os.close(descriptor)

    def save_state(self, state: Any) -> None:
        from dora_node_api.data.saved_state import write_state

        descriptor, form, size = write_state(state)
        try:
            message = SaveState(form, size)
            self._connection.calls.run(lambda: self._connection.send(message, (descriptor,)))
        finally:
            os.close(descriptor)

    def load_state(self) -> Any:
        return self._state

    def send_control(self, message: Message) -> None:
        self._connection.calls.run(lambda: self._connection.send(message))

    @property
    def extensions(self) -> Extensions:
        return self._connection.extensions

    def send_sample(self, output: str, sample: SampleMemory, metadata: Mapping[str, Any]) -> None:
        if self._closed:
            raise NodeClosed(f"output `{output}`: the node was closed before its sample was sent")
        super().send_sample(output, sample, metadata)

    def warn(self, message: str) -> None:
        self._connection.warn(message)

    # --- the end ---------------------------------------------------------------------------------

    def share(self, path: str, node_id: str) -> bool:
        with _holding:
            if (path, node_id) != (self._path, self.config.node_id) or self._connection.gone:
                return False
            if self.ended or not self._holders:
                return False
            self._holders += 1
            return True

    def leave(self) -> None:
        if not self._closed and not self._connection.gone:
            self._connection.leave()

    def close(self) -> None:
        if not self._connection.calls.busy():
            self._close()
            return
        # In a signal handler: the interrupted call returns soon, and closes the backend then.
        if self._holders <= 1:
            self._connection.halt()
            self.end_waits()
        self._connection.calls.closing.append(self._close)

    def _close(self) -> None:
        with _holding:
            self._holders = max(0, self._holders - 1)
            if self._holders or self._closed:
                return
        self.leave()
        self._closed = True
        if self.close_inputs():
            self._connection.close()
        # Otherwise a thread still receives; the descriptors are closed when the process ends.
