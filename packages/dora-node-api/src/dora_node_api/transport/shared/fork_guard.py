"""Disables the transport in forked children.

A child shares its parent's descriptors and shared memory. If it read, wrote or released anything,
it would take the parent's messages and free the parent's arrays. Objects that do so derive from
`ForkAware`, whose `forked` becomes True in a child; an object made in the child works.
"""

from __future__ import annotations

import os
import weakref

from dora_node_api.errors import NodeForked

_alive: weakref.WeakSet[ForkAware] = weakref.WeakSet()


class ForkAware:
    """Base of objects that must not be used in a forked child."""

    __slots__ = ("__weakref__", "forked")

    forked: bool

    def __init__(self) -> None:
        self.forked = False
        _alive.add(self)


def forked_error() -> NodeForked:
    """Return the error of any use in a forked child."""
    return NodeForked(
        f"process {os.getpid()} was forked from a node and cannot use the node's messages: they "
        "belong to its parent. Start children with multiprocessing's `spawn` method or with "
        "subprocess, and pass them copies (array.to_numpy().copy())"
    )


def _after_fork_in_child() -> None:
    for thing in list(_alive):
        thing.forked = True
    _alive.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
