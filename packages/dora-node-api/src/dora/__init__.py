"""The names that ready-made dora nodes import."""

from typing import TYPE_CHECKING, Any

from dora_node_api._version import __version__ as __version__
from dora_node_api.node import Node as Node

if TYPE_CHECKING:
    from dora import builder as builder, testing as testing
    from dora_node_api.backends.sample import SampleHandler as SampleHandler
    from dora_node_api.launch import build as build, run as run
    from dora_node_api.operators import DoraStatus as DoraStatus, main

    start_runtime = main

__author__ = "The dora for Python authors"

_HOMES = {
    "DoraStatus": ("dora_node_api.operators", "DoraStatus"),
    "SampleHandler": ("dora_node_api.backends.sample", "SampleHandler"),
    "build": ("dora_node_api.launch", "build"),
    "run": ("dora_node_api.launch", "run"),
    "start_runtime": ("dora_node_api.operators", "main"),
    "builder": ("dora.builder", None),
    "testing": ("dora.testing", None),
}
if not TYPE_CHECKING:
    __all__ = ["Node", *_HOMES, "__author__", "__version__"]

_ROS2 = "dora_ros2.api"
_HOMES |= {
    f"Ros2{name}": (_ROS2, f"Ros2{name}")
    for name in (
        "ActionClient", "ActionServer", "Context", "Durability", "Liveliness", "Node",
        "NodeOptions", "Publisher", "QosPolicies", "ServiceClient", "ServiceServer",
        "Subscription", "Topic", "Transport",
    )
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import rarely used names when they are used, so that nodes start faster."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    if module == _ROS2:
        from importlib.util import find_spec

        if find_spec("dora_ros2") is None:
            raise AttributeError(
                f"dora.{name} needs dora-ros2; install it, in a checkout of dora for Python:"
                " pip install packages/dora-ros2"
            )
    loaded = import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
