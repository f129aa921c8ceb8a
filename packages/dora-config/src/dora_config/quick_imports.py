"""Makes imports quicker; the modules of our processes import it first.

- Imports allocate much and free little: with the default threshold, garbage collections take a
  tenth of their time.
- pydantic searches all installed distributions for plugins, for which it imports much. They are not
  meant for our models.
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType

gc.set_threshold(20_000, 20, 50)

_no_plugins = ModuleType("pydantic.plugin._loader")
vars(_no_plugins)["get_plugins"] = tuple
sys.modules.setdefault(_no_plugins.__name__, _no_plugins)
