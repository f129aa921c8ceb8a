"""`dora run --ui` and `dora ui` without a coordinator, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser.conditions import node, see
from support.browser.session import chromium, opened
from support.dora import running_dora
from support.fleets.watched_fleet import watched
from support.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration

PHOTO = """
    import os
    import struct
    import zlib

    import pyarrow as pa

    from dora import Node

    WIDTH, HEIGHT = 640, 480


    def chunk(kind, body):
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))


    def png():
        rows = b"".join(b"\\0" + os.urandom(3 * WIDTH) for _ in range(HEIGHT))
        header = chunk(b"IHDR", struct.pack(">2I5B", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(rows, 0))
        return b"\\x89PNG\\r\\n\\x1a\\n" + header + body + chunk(b"IEND", b"")


    node = Node()
    images = [png(), png()]
    count = 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("image", pa.array([images[count % 2]]), {"encoding": "png"})
            count += 1
"""
"""Images of 900 kB, which do not fit into one update of a stream."""

SINK = """
    from dora import Node

    for event in Node():
        pass
"""

RIG = """
    module: {name: rig, outputs: [image]}
    nodes:
      - {id: eye, module: eye.yml}
      - {id: sink, path: sink.py, inputs: {image: eye/image}}
"""

EYE = """
    module: {name: eye, outputs: [image]}
    nodes:
      - {id: photo, path: photo.py, inputs: {tick: dora/timer/millis/300}, outputs: [image]}
      - {id: check, path: sink.py, inputs: {image: photo/image}}
"""


@pytest.fixture
def browser(home: Path) -> Iterator[Browser]:
    with chromium() as found:
        yield found


def collapse_each_level(page: Page) -> None:
    """Collapse and expand modules in modules, by the list and by keyboard."""
    page.get_by_text("Modules", exact=True).click()
    page.get_by_title("Collapse rig.eye", exact=True).click()
    see(page, '[data-node^="module rig.eye "]', "2 nodes")
    node(page, "rig.sink")
    page.get_by_title("Collapse rig", exact=True).click()
    see(page, '[data-node^="module rig "]', "3 nodes")
    assert page.get_by_title("Expand rig.eye", exact=True).count() == 0
    page.get_by_title("Expand rig", exact=True).press("Escape")
    drawing = page.locator(".drawing svg")
    drawing.press("ArrowRight")
    drawing.press("Enter")
    node(page, "rig.sink")
    inner = see(page, '[data-node^="module rig.eye "]')
    inner.dblclick()
    node(page, "rig.eye.photo").click()
    drawing.press("c")
    inner.wait_for()


def test_a_large_compressed_image(browser: Browser, workspace: Workspace) -> None:
    workspace.node("photo", PHOTO)
    workspace.node("sink", SINK)
    workspace.file("rig.yml", RIG)
    workspace.file("eye.yml", EYE)
    flow = workspace.dataflow({"nodes": [{"id": "rig", "module": "rig.yml"}]})
    with running_dora("run", flow, "--ui", cwd=workspace.path) as run:
        ui = opened(run, browser)
        page = ui.open()
        page.locator("nav a").filter(has_text=workspace.path.name).click()
        page.locator('[data-node="rig.eye.photo"]').click()
        page.locator(".ports a").filter(has_text="image").click()
        page.wait_for_function("() => document.querySelector('figure img')?.naturalWidth > 0")
        page.wait_for_function(
            "() => Number(document.querySelector('[data-shown]').dataset.shown) > 2"
        )
        page.locator("figcaption").filter(has_text="640 × 480").wait_for()
        page.locator("nav a").filter(has_text=workspace.path.name).click()
        collapse_each_level(page)
        assert ui.errors == []
        run.interrupt()
        run.wait().succeeded()


def test_a_run_in_the_browser(browser: Browser, workspace: Workspace) -> None:
    flow = watched(workspace)
    with running_dora("run", flow, "--ui", cwd=workspace.path) as run:
        ui = opened(run, browser)
        page = ui.open()
        page.locator("nav a").filter(has_text=workspace.path.name).click()
        page.locator('[data-node="camera"][data-status="Running"]').wait_for()
        page.locator('[data-edge="arm>planner"] .rate').filter(has_text="/s").wait_for()
        uuid = page.url.partition("/dataflow/")[2].partition("/")[0]
        page.goto(f"{ui.address}#/dataflow/{uuid}/node/arm")
        page.locator(".line").filter(has_text="step 0").wait_for()
        page.goto(f"{ui.address}#/dataflow/{uuid}/output/camera/image")
        page.wait_for_function("() => document.querySelector('figure img')?.naturalWidth === 160")
        page.goto(f"{ui.address}#/dataflow/{uuid}")
        # A second page of this account finds the run by itself.
        with running_dora("ui", "--local", "--no-browser", cwd=workspace.path) as another:
            second = opened(another, browser)
            second.open("dataflow", uuid).locator('[data-node="arm"]').wait_for()
            assert second.errors == []
            another.interrupt()
            another.wait().succeeded()
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_role("button", name="Stop dataflow").click()
        run.wait().succeeded()
        page.get_by_text("The local server does not answer").wait_for()
        assert [one for one in ui.errors if "WebSocket" not in one] == []
