"""Write dora nodes in Python."""

import sys
from typing import TYPE_CHECKING, Any

# Old interpreters must be able to parse this file: no syntax newer than Python 3.6.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(
        f"dora needs Python 3.11 or newer, but {sys.executable} is Python"
        f" {sys.version_info[0]}.{sys.version_info[1]}; run the node with a newer one (in a virtual"
        " environment made with `uv venv --python 3.11`, for example)"
    )

from dora_node_api._version import __version__ as __version__

if TYPE_CHECKING:
    from dora_node_api.backends.sample import SampleHandler as SampleHandler
    from dora_node_api.errors import (
        BackpressureDeadlock as BackpressureDeadlock,
        ControlError as ControlError,
        DoraNodeError as DoraNodeError,
        ExtensionError as ExtensionError,
        InvalidData as InvalidData,
        NodeClosed as NodeClosed,
        NodeForked as NodeForked,
        NodeInterrupted as NodeInterrupted,
        OperatorError as OperatorError,
        SetUpError as SetUpError,
        UnknownOutput as UnknownOutput,
    )
    from dora_node_api.events import (
        ErrorEvent as ErrorEvent,
        Event as Event,
        EventStream as EventStream,
        InputClosed as InputClosed,
        InputEvent as InputEvent,
        InputRecovered as InputRecovered,
        NodeFailed as NodeFailed,
        NodeRestarted as NodeRestarted,
        ParamDeleted as ParamDeleted,
        ParamUpdated as ParamUpdated,
        Reload as Reload,
        Sample as Sample,
        Stop as Stop,
        UnknownEvent as UnknownEvent,
    )
    from dora_node_api.joined import Join as Join
    from dora_node_api.node import Node as Node
    from dora_node_api.operators import DoraStatus as DoraStatus
    from dora_node_api.testing import MockNode as MockNode
    from dora_node_api.transport.shared.errors import (
        BrokenRecord as BrokenRecord,
        PoolExhausted as PoolExhausted,
        TransportError as TransportError,
    )

_HOMES = {
    "backends.sample": ("SampleHandler",),
    "errors": (
        *("BackpressureDeadlock", "ControlError", "DoraNodeError", "ExtensionError"),
        *("InvalidData", "NodeClosed"),
        *("NodeForked", "NodeInterrupted", "OperatorError", "SetUpError", "UnknownOutput"),
    ),
    "events": (
        *("ErrorEvent", "Event", "EventStream", "InputClosed", "InputEvent", "InputRecovered"),
        *("NodeFailed", "NodeRestarted", "ParamDeleted", "ParamUpdated", "Reload", "Stop"),
        *("Sample", "UnknownEvent"),
    ),
    "joined": ("Join",),
    "node": ("Node",),
    "operators": ("DoraStatus",),
    "testing": ("MockNode",),
    "transport.shared.errors": ("BrokenRecord", "PoolExhausted", "TransportError"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
if not TYPE_CHECKING:
    __all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: nodes and daemons need few of them."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
