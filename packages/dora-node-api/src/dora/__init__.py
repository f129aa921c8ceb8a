"""The names that ready-made dora nodes import."""

from typing import TYPE_CHECKING, Any

from dora_node_api._version import __version__
from dora_node_api.node import Node

if TYPE_CHECKING:
    from dora import builder, testing
    from dora_node_api.backends.sample import SampleHandler
    from dora_node_api.launch import build, run
    from dora_node_api.operators import DoraStatus, main as start_runtime

__author__ = "The dora for Python authors"

__all__ = [
    "DoraStatus",
    "Node",
    "SampleHandler",
    "__author__",
    "__version__",
    "build",
    "builder",
    "run",
    "start_runtime",
    "testing",
]

_HOMES = {
    "DoraStatus": ("dora_node_api.operators", "DoraStatus"),
    "SampleHandler": ("dora_node_api.backends.sample", "SampleHandler"),
    "build": ("dora_node_api.launch", "build"),
    "run": ("dora_node_api.launch", "run"),
    "start_runtime": ("dora_node_api.operators", "main"),
    "builder": ("dora.builder", None),
    "testing": ("dora.testing", None),
}
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
            raise AttributeError(f"dora.{name} needs dora-ros2: pip install dora-ros2")
    loaded = import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
