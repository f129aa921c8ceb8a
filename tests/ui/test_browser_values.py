"""Odd values of an output in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser.conditions import PATIENCE_MS, see
from support.browser.session import Ui, chromium, opened
from support.dora import running_dora
from support.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("console")]

ODD = """
    import math

    import pyarrow as pa

    from dora import Node

    node = Node()
    count = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        count += 1
        node.send_output("many", pa.array([count + number / 10 for number in range(10)]))
        node.send_output("pressure", pa.array([101325 + math.sin(count)]))
        # The viewer's rate takes every second message.
        is_gap = count // 2 % 2 == 0
        node.send_output("gaps", pa.array([math.nan if is_gap else 1.0]))
        rows = [] if is_gap else [{"id": 123456789}]
        node.send_output("rows", pa.array(rows, pa.struct({"id": pa.int64()})))
"""
OUTPUTS = ("many", "pressure", "gaps", "rows")

DRAWN = """
    window.drawn = {texts: new Set(), points: 0};
    const {fillText} = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        window.drawn.texts.add(text);
        fillText.call(this, text, ...rest);
    };
    const {arc} = Path2D.prototype;
    Path2D.prototype.arc = function (...rest) {
        window.drawn.points += 1;
        arc.apply(this, rest);
    };
"""
"""Records what plots draw."""


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def ui(shared_workspace: Workspace) -> Iterator[Ui]:
    workspace = shared_workspace
    workspace.node("odd", ODD)
    tick = {"tick": "dora/timer/millis/100"}
    node = {"id": "odd", "path": "odd.py", "inputs": tick, "outputs": list(OUTPUTS)}
    flow = workspace.dataflow({"nodes": [node]})
    with (
        chromium() as browser,
        running_dora("run", flow, "--ui", cwd=workspace.path) as run,
    ):
        yield opened(run, browser)
        run.interrupt()
        run.wait().succeeded()


def output(ui: Ui, name: str) -> Page:
    """Open an output, as soon as the run is known."""
    page = ui.open()
    see(page, ".side a[href*=dataflow]").click()
    page.wait_for_url("**/dataflow/**")
    uuid = page.url.rpartition("/dataflow/")[2]
    page.close()
    return ui.open("dataflow", uuid, "output", "odd", name)


def wait_shown(page: Page, count: int) -> None:
    """Wait until more than ``count`` messages were shown."""
    page.wait_for_function(
        "count => Number(document.querySelector('[data-shown]')?.dataset.shown) > count",
        arg=count,
        timeout=PATIENCE_MS,
    )


def test_a_plot_keeps_its_height_on_a_small_screen(ui: Ui) -> None:
    page = output(ui, "many")
    page.set_viewport_size({"width": 360, "height": 700})
    legend = see(page, ".u-legend")
    wait_shown(page, 5)
    plot = page.locator(".output .plot")
    before = plot.evaluate("one => one.clientHeight")
    wait_shown(page, 15)
    assert plot.evaluate("one => one.clientHeight") == before
    box, outer = legend.bounding_box(), plot.bounding_box()
    assert box is not None
    assert outer is not None
    assert box["y"] + box["height"] <= outer["y"] + outer["height"]


def test_the_axis_has_enough_digits(ui: Ui) -> None:
    page = output(ui, "pressure")
    page.add_init_script(DRAWN)
    page.reload()
    page.wait_for_function(
        "() => [...window.drawn.texts].some(text => text.startsWith('10132') && text.includes('.'))"
    )


def test_values_between_gaps_are_points(ui: Ui) -> None:
    page = output(ui, "gaps")
    page.add_init_script(DRAWN)
    page.reload()
    page.wait_for_function("() => window.drawn.points > 0")
    page.wait_for_function(
        """() => document.querySelector('.aside dd').textContent === 'null'
            && [...document.querySelectorAll('.actions label')]
                .find((label) => label.textContent.startsWith('Show'))
                .querySelector('select').value === 'plot'"""
    )


def test_integers_are_shown_in_full_between_empty_messages(ui: Ui) -> None:
    page = output(ui, "rows")
    see(page, ".output td", "123456789")
    see(page, ".aside dd", "123456789")
    page.wait_for_function(
        """() => document.querySelector('.aside .number') === null
            && [...document.querySelectorAll('.actions label')]
                .find((label) => label.textContent.startsWith('Show'))
                .querySelector('select').value === 'table'"""
    )


def test_a_clock_that_was_set_back_begins_the_plot_again(ui: Ui) -> None:
    page = output(ui, "pressure")
    passed = 0

    def earlier(text: str | bytes) -> str:
        nonlocal passed
        frame: dict[str, Any] = json.loads(text)
        for sample in frame.get("samples", ()):
            passed += 1
            if passed > 5:
                sample["timestamp"] -= 3_600_000
        return json.dumps(frame)

    def altered(socket: WebSocketRoute) -> None:
        socket.connect_to_server().on_message(lambda text: socket.send(earlier(text)))

    page.route_web_socket("**/live", altered)
    page.reload()
    wait_shown(page, 8)
    points, shown = page.evaluate(
        """() => [document.querySelector('.output .plot').dataset.points,
            document.querySelector('[data-shown]').dataset.shown].map(Number)"""
    )
    assert points == shown - 5
