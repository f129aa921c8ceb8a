"""Everything this package raises.

- `DoraNodeError`
  - `ControlError`: bytes on the control socket that are no message of ours
    - `ControlClosed`: the other end is gone
  - `SetUpError`: a node cannot be connected (also a `RuntimeError`, as existing nodes expect)
  - `NodeForked`: a forked child used what belongs to its parent (also a `RuntimeError`)
  - `NodeClosed`: the node was closed (also a `RuntimeError`)
  - `InvalidData`: what was given to a send method cannot be sent (also `TypeError`, `RuntimeError`)
  - `UnknownOutput`: an output that the dataflow does not declare (also a `RuntimeError`)
  - `BackpressureDeadlock`: a cycle of full queues would never have come to an end
  - `OperatorError`: an operator's file or class cannot be used, or it returned something odd

What the transport raises lies beside it, in `dora_node_api.transport`.
"""

from __future__ import annotations


class DoraNodeError(Exception):
    """Root of the errors of dora_node_api."""


class ControlError(DoraNodeError):
    """Bytes on the control socket that are no message of this protocol.

    `fatal` says that the frames can no longer be told apart, so the connection is of no more use;
    otherwise only this one message was lost.
    """

    def __init__(self, problem: str, *, fatal: bool = False) -> None:
        super().__init__(problem)
        self.fatal = fatal


class ControlClosed(ControlError):
    """The other end of the control socket is gone."""

    def __init__(self, problem: str = "the control socket was closed by the other end") -> None:
        super().__init__(problem, fatal=True)


class SetUpError(DoraNodeError, RuntimeError):
    """A node could not be connected to its dataflow."""


class NodeForked(DoraNodeError, RuntimeError):
    """A process forked from a node used the node, which belongs to its parent alone."""


class NodeClosed(DoraNodeError, RuntimeError):
    """The node was closed in this process and can neither send nor receive."""


class InvalidData(DoraNodeError, TypeError, RuntimeError):
    """Data or metadata that cannot be sent; existing nodes expect a `RuntimeError`."""


class UnknownOutput(DoraNodeError, RuntimeError):
    """An output that the dataflow does not declare for this node."""


class BackpressureDeadlock(DoraNodeError, RuntimeError):
    """A sender waited on a cycle of backpressure queues that are all full.

    `cycle` names its nodes in order.
    """

    def __init__(self, edge: str, cycle: tuple[str, ...], seconds: float) -> None:
        self.edge = edge
        self.cycle = cycle
        circle = " -> ".join((*cycle, cycle[0]))
        super().__init__(
            f"{edge}: no room for {seconds:g} s while the inputs of this node are full too, and"
            f" they lie on one cycle of backpressure: {circle}. Nobody on it can go on. Give one of"
            " its inputs `queue_policy: drop_oldest`, or a queue_size above what is ever under way"
        )


class OperatorError(DoraNodeError):
    """An operator's file, class or return value is not what the operator interface asks for."""
