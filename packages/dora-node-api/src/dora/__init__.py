"""The names that ready-made dora nodes import."""

import sys
from typing import TYPE_CHECKING, Any

from dora_node_api._version import __version__ as __version__
from dora_node_api.node import Node as Node

if TYPE_CHECKING:
    from dora import builder as builder, testing as testing
    from dora_node_api.backends.sample import SampleHandler as SampleHandler
    from dora_node_api.events import Sample as Sample
    from dora_node_api.joined import Join as Join
    from dora_node_api.launch import build as build, run as run
    from dora_node_api.operators import DoraStatus as DoraStatus, main

    start_runtime = main

__author__ = "The dora for Python authors"

_HOMES = {
    "DoraStatus": ("dora_node_api.operators", "DoraStatus"),
    "Join": ("dora_node_api.joined", "Join"),
    "Sample": ("dora_node_api.events", "Sample"),
    "SampleHandler": ("dora_node_api.backends.sample", "SampleHandler"),
    "build": ("dora_node_api.launch", "build"),
    "run": ("dora_node_api.launch", "run"),
    "start_runtime": ("dora_node_api.operators", "main"),
    "builder": ("dora.builder", None),
    "testing": ("dora.testing", None),
}


def __getattr__(name: str) -> Any:
    """Import rarely used names, and those of plug-ins, when they are used: nodes start faster."""
    if name == "__all__":  # for `from dora import *`
        from dora_node_api import plugins

        return ["Node", *_HOMES, *plugins.names(), "__author__", "__version__"]
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        from importlib import import_module

        module, attribute = _HOMES[name]
        loaded = import_module(module)
        value = loaded if attribute is None else getattr(loaded, attribute)
    else:
        from dora_node_api import plugins

        try:
            value = plugins.load(name)
        except plugins.PlugInUnusable as error:
            # `from dora import NAME` replaces the text of an AttributeError
            if sys._getframe(1).f_code.co_name == "_handle_fromlist":
                raise ImportError(str(error), name=__name__) from None
            raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from dora_node_api import plugins

    return sorted({*globals(), *_HOMES, *plugins.names()})
