"""Makes imports quicker; the modules of our processes import it first.

- Imports allocate much and free little: with the default threshold, garbage collections take a
  tenth of their time.
- pydantic searches all installed distributions for plugins, for which it imports much. They are not
  meant for our models.
- uvicorn imports its command, and the processes that restart a server when a file changes.
- Some modules are imported by libraries that use them in cases that our processes do not have.
"""

from __future__ import annotations

import gc
import sys
import threading
from importlib import import_module
from types import ModuleType

gc.set_threshold(20_000, 20, 50)

_REMOVAL = threading.Lock()
"""Two threads may use a delayed module for the first time at once."""


def _replace(name: str, **contents: object) -> None:
    """Let a module that is not imported yet have these contents."""
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules.setdefault(name, module)


def _delay(name: str) -> None:
    """Import a module when something in it is used."""

    def load(attribute: str) -> object:
        if attribute.startswith("__") and attribute != "__path__":
            raise AttributeError(attribute)  # `inspect` reads these of all modules
        with _REMOVAL:
            if getattr(sys.modules.get(name), "__getattr__", None) is load:
                del sys.modules[name]
        return getattr(import_module(name), attribute)

    _replace(name, __getattr__=load)
    parent, _, child = name.rpartition(".")
    if parent:
        vars(sys.modules[parent]).setdefault(child, sys.modules[name])


_replace("pydantic.plugin._loader", get_plugins=tuple)
_replace("uvicorn.main", __getattr__=lambda _name: None)
for _name in ("html", "importlib.metadata", "tarfile"):
    _delay(_name)
