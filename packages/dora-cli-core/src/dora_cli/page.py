"""The page of `dora ui`, `--ui` and `dora graph`, provided by a plug-in (group `dora.pages`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dora_config import plugins

if TYPE_CHECKING:
    from dora_config.dataflow.resolved import ResolvedDataflow


@dataclass(frozen=True, slots=True)
class PageSource:
    """A coordinator, or with ``local`` the runs on this computer."""

    host: str = ""
    port: int = 0
    local: bool = False
    dataflow: str | None = None
    """UUID of the dataflow to show first; of local runs, the only one to show."""


def show(
    source: PageSource, *, port: int = 0, read_only: bool = False, open_browser: bool = True
) -> None:
    """Serve the page until SIGINT or SIGTERM. Raises PluginError."""
    serve = plugins.load("dora.pages", "show")
    serve(source, port=port, read_only=read_only, open_browser=open_browser)


def beside(source: PageSource) -> AbstractContextManager[None]:
    """Serve the page in a separate process during a block. Raises PluginError."""
    found: AbstractContextManager[None] = plugins.load("dora.pages", "beside")(source)
    return found


def graph(dataflow: ResolvedDataflow, title: str) -> str:
    """Return a page with a dataflow, for `dora graph`. Raises PluginError."""
    text: str = plugins.load("dora.pages", "graph")(dataflow, title)
    return text
