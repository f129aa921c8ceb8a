"""Errors of this package.

- `DoraNodeError`
  - `ControlError`: malformed bytes on the control socket
    - `ControlClosed`: the other end closed the control socket
  - `SetUpError`: a node cannot be connected (also a `RuntimeError`, as existing nodes expect)
    - `StartCancelled`: the dataflow does not start, for no fault of this node (also a `SystemExit`)
  - `NodeForked`: a forked child used its parent's node (also a `RuntimeError`)
  - `NodeInterrupted`: a signal handler's exception ended a call halfway (also a `RuntimeError`)
  - `NodeClosed`: the node was closed (also a `RuntimeError`)
  - `InvalidData`: data or metadata that cannot be sent (also `TypeError`, `RuntimeError`)
  - `UnknownOutput`: an output that the dataflow does not declare (also a `RuntimeError`)
  - `BackpressureDeadlock`: a send waited on a cycle of full queues
  - `OperatorError`: an operator's file, class or return value is invalid
  - `ExtensionError`: a value of an extension cannot be stored or loaded (also a `RuntimeError`)

The errors of the transport are in `dora_node_api.transport.shared.errors`.
"""

from __future__ import annotations


class DoraNodeError(Exception):
    """Root of the errors of dora_node_api."""


class ControlError(DoraNodeError):
    """Malformed bytes on the control socket: the connection is unusable."""


class ControlClosed(ControlError):
    """The other end closed the control socket."""

    def __init__(self, problem: str = "the control socket was closed by the other end") -> None:
        super().__init__(problem)


class SetUpError(DoraNodeError, RuntimeError):
    """A node could not be connected to its dataflow."""


class StartCancelled(SetUpError, SystemExit):
    """The dataflow does not start: another node failed, or it is being stopped.

    Uncaught, it ends the process with exit code 1 and prints its text without a traceback.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = reason


class NodeForked(DoraNodeError, RuntimeError):
    """A forked process used a node of its parent."""


class NodeInterrupted(DoraNodeError, RuntimeError):
    """An exception raised by a signal handler ended an earlier call of the node halfway."""


class NodeClosed(DoraNodeError, RuntimeError):
    """The node was closed in this process and can neither send nor receive."""


class InvalidData(DoraNodeError, TypeError, RuntimeError):
    """Data or metadata that cannot be sent; existing nodes expect a `RuntimeError`."""


class UnknownOutput(DoraNodeError, RuntimeError):
    """An output that the dataflow does not declare for this node."""


class BackpressureDeadlock(DoraNodeError, RuntimeError):
    """A sender waited on a cycle of backpressure queues that are all full.

    `cycle` lists its nodes in order.
    """

    def __init__(self, edge: str, cycle: tuple[str, ...], seconds: float) -> None:
        self.edge = edge
        self.cycle = cycle
        circle = " -> ".join((*cycle, cycle[0]))
        super().__init__(
            f"{edge}: no room for {seconds:g} s while the inputs of this node are full too; the"
            f" queues form a cycle of backpressure: {circle}. Give one of its inputs"
            " `queue_policy: drop_oldest`, or a queue_size above the number of messages under way"
        )


class ExtensionError(DoraNodeError, RuntimeError):
    """A value of an extension cannot be stored or loaded."""


class OperatorError(DoraNodeError):
    """An operator's file, class or return value is invalid."""
