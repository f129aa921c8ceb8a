"""The page of `dora graph`: complete, offline, safe against what names hold, and readable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from config.parsing import parse
from support.browser.conditions import PATIENCE_MS, see
from support.waiting import wait_until

from dora_ui.graph_page import graph_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TEXT = """\
nodes:
  - id: camera
    path: camera.py
    description: 'sees <b> & "quotes" </script><script>alert(1)</script>'
    inputs: {tick: dora/timer/millis/33}
    outputs: [image, spare]
    output_types: {image: std/media/v1/Image}
    env: {TOKEN: secret}
    deploy: {machine: robot}
  - id: plan
    path: plan.py
    inputs:
      image: camera/image
      state: {source: arm/other/state, queue_policy: backpressure, input_timeout: 2}
      logs: dora/logs/warn
    outputs: [command]
  - id: arm
    operators:
      - {id: op, python: arm.py, inputs: {command: plan/command}}
      - {id: other, python: other.py, outputs: [state]}
  - {id: view, path: dynamic, inputs: {image: camera/image}}
"""


def page(text: str = TEXT) -> str:
    return graph_page(parse(text).resolved, "flow <1>.yml")


def dataflow(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="dataflow">(.*?)</script>', html)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_needs_no_network() -> None:
    html = page()
    assert not re.search(r"<link|<img|@import|url\((?!#)|\bsrc=", html)
    assert not re.search(r'"https?://', html)
    (imports,) = re.findall(r'"importmap">(.*?)</script>', html)
    addresses = json.loads(imports)["imports"].values()
    assert all(address.startswith("data:") for address in addresses)
    assert len(html) < 1_000_000


def test_names_cannot_break_out() -> None:
    html = page()
    assert "<script>alert" not in html
    assert html.count("</script>") == 4
    assert "<title>flow &lt;1&gt;.yml</title>" in html


def test_details_of_nodes() -> None:
    camera = next(one for one in dataflow(page())["nodes"] if one["id"] == "camera")
    details = camera["details"]
    assert details["Runs on"] == camera["machine"] == "robot"
    assert details["Outputs"] == "image: std/media/v1/Image\nspare"
    assert details["Inputs"] == "tick ← dora/timer/millis/33"
    assert details["Environment"] == "TOKEN"
    assert "secret" not in page()


def ten(machines: int) -> str:
    """Ten nodes: a camera with five readers, a chain of four, and a way back."""
    readers = [f"reader-{number}" for number in range(5)]
    nodes: list[dict[str, Any]] = [
        {"id": "camera", "path": "a.py", "inputs": {"tick": "dora/timer/millis/33"}}
    ]
    nodes += [{"id": one, "path": "a.py", "inputs": {"image": "camera/out"}} for one in readers]
    nodes += [
        {"id": "fusion-of-all-readers", "path": "a.py", "inputs": {r: f"{r}/out" for r in readers}},
        {"id": "planner", "path": "a.py", "inputs": {"a": "fusion-of-all-readers/out"}},
        {"id": "controller", "path": "a.py", "inputs": {"a": "planner/out", "b": "camera/out"}},
        {"id": "arm", "path": "a.py", "inputs": {"a": "controller/out", "b": "planner/out"}},
    ]
    nodes[7]["inputs"]["state"] = "arm/out"
    for number, one in enumerate(nodes):
        one["outputs"] = ["out"]
        if machines > 1:
            one["deploy"] = {"machine": f"robot-{number * machines // len(nodes)}"}
    return json.dumps({"nodes": nodes})


def modules() -> str:
    """Three modules, each with a module in it, that feed one node."""
    nodes: list[dict[str, Any]] = []
    for side in ("left", "right", "middle"):
        last: dict[str, Any] = {"tick": "dora/timer/millis/10"}
        for part in ("driver", "inner.filter", "inner.fit", "controller"):
            name = f"{side}.{part}"
            nodes.append({"id": name, "path": "a.py", "inputs": last, "outputs": ["out"]})
            last = {"value": f"{name}/out"}
    inputs = {side: f"{side}.controller/out" for side in ("left", "right", "middle")}
    nodes.append({"id": "planner", "path": "a.py", "inputs": inputs})
    return json.dumps({"nodes": nodes})


def thirty() -> str:
    nodes = [
        {
            "id": f"node-{number}",
            "path": "a.py",
            "inputs": {
                f"in{back}": f"node-{number - back}/out" for back in (1, 4) if number >= back
            },
            "outputs": ["out"],
        }
        for number in range(30)
    ]
    return json.dumps({"nodes": nodes})


ROLES: dict[str, tuple[dict[str, str], list[str]]] = {
    # a planner is first in the file, and closes cycles with the camera and the driver
    "planner": ({"objects": "detector", "odometry": "base-driver"}, ["command", "settings"]),
    "camera-front": ({"tick": "dora/timer/millis/33", "settings": "planner"}, ["image"]),
    "detector": ({"image": "camera-front"}, ["objects"]),
    "base-driver": ({"command": "planner"}, ["odometry"]),
    "lidar": ({"tick": "dora/timer/millis/100"}, ["scan"]),
    "localization": ({"scan": "lidar", "odometry": "base-driver"}, ["pose"]),
    "tracker": ({"objects": "detector", "image": "camera-front"}, ["tracks"]),
    "arm-driver": ({"command": "planner", "tracks": "tracker"}, ["state"]),
    "safety-monitor": ({"odometry": "base-driver", "scan": "lidar"}, ["stop"]),
    "recorder": ({"image": "camera-front", "pose": "localization"}, []),
    "speech": ({"command": "planner"}, ["audio"]),
}


def fleet(count: int) -> str:
    """Nodes on three machines, whose planners send to each other in a ring."""
    nodes: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        for role, (inputs, outputs) in list(ROLES.items())[: -(-count // 3)]:
            sources = {
                name: source if source.startswith("dora/") else f"{source}-{number}/{name}"
                for name, source in inputs.items()
            }
            if role == "planner":
                sources["peer"] = f"planner-{number % 3 + 1}/intent"
                outputs = [*outputs, "intent"]
            nodes.append(
                {
                    "id": f"{role}-{number}",
                    "path": "a.py",
                    "inputs": sources,
                    "outputs": outputs,
                    "deploy": {"machine": f"robot-{number}"},
                }
            )
    return json.dumps({"nodes": nodes[:count]})


NAMES = """() => {
    const rect = one => one.getBoundingClientRect();
    const area = rect(document.querySelector('.drawing'));
    const inside = box => box.left >= area.left && box.right <= area.right &&
        box.top >= area.top && box.bottom <= area.bottom;
    const nodes = [...document.querySelectorAll('.node')];
    const found = [];
    const shown = new Map();
    nodes.forEach((node, index) => {
        const [name, box] = [node.querySelector('.name'), rect(node.querySelector('.box'))];
        const id = node.dataset.node;
        const letters = name?.textContent.replace('…', '') ?? '';
        if (letters.length < Math.min(4, id.length)) found.push(`${id}: only "${letters}"`);
        const [start, end = ''] = (name?.textContent ?? '').split('…');
        if (!id.startsWith(start) || !id.endsWith(end)) found.push(`${id} is ${name.textContent}`);
        if (!inside(box) || !inside(rect(name))) found.push(`${id} is outside`);
        for (const other of nodes.slice(index + 1)) {
            const [a, b] = [rect(name), rect(other.querySelector('.name'))];
            const level = a.top < b.bottom - 3 && b.top < a.bottom - 3;
            if (level && a.left < b.right && b.left < a.right)
                found.push(`${id} over ${other.dataset.node}`);
        }
    });
    for (const text of document.querySelectorAll('.drawing text')) {
        const [a, b] = [rect(text), rect(document.querySelector('.zoom'))];
        if (a.right > b.left && a.left < b.right && a.bottom > b.top && a.top < b.bottom)
            found.push(`buttons over ${text.textContent}`);
    }
    return found;
}"""
"""What hides names of nodes, as sentences."""

FAULTS = """() => {
    const hit = (a, b) =>
        a.left < b.right - 1 && b.left < a.right - 1 &&
        a.top < b.bottom - 1 && b.top < a.bottom - 1;
    const within = (at, box) =>
        at.x > box.left + 3 && at.x < box.right - 3 && at.y > box.top + 3 && at.y < box.bottom - 3;
    const rect = one => one.getBoundingClientRect();
    const all = (selector, key) =>
        [...document.querySelectorAll(selector)].map(one => [one.dataset[key], rect(one)]);
    const [boxes, labels] = [all('.node', 'node'), all('.label', 'edge')];
    const found = [];
    labels.forEach(([edge, label], index) => {
        for (const [node, box] of boxes) if (hit(label, box)) found.push(`${edge} on ${node}`);
        for (const [other, area] of labels.slice(index + 1))
            if (hit(label, area)) found.push(`labels of ${edge} and ${other}`);
    });
    for (const edge of document.querySelectorAll('.edge')) {
        const line = edge.querySelector('.line');
        for (let length = 0; length <= line.getTotalLength(); length += 5) {
            const at = line.getPointAtLength(length).matrixTransform(line.getScreenCTM());
            const over = boxes.find(([, box]) => within(at, box));
            if (over) {
                found.push(`${edge.dataset.edge} through ${over[0]}`);
                break;
            }
        }
    }
    for (const text of document.querySelectorAll('.drawing text')) {
        const size = parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
        if (size < 10.99) found.push(`${text.textContent} has ${size} pixels`);
        const box = text.closest('.node')?.querySelector('.box');
        if (box && rect(text).right > rect(box).right) found.push(`${text.textContent} is long`);
    }
    return found;
}"""
"""What makes a graph unreadable, as sentences."""

DESK = (1440, 900)
LAPTOP = (1280, 720)
PHONE = (390, 844)

Open = Callable[[str, tuple[int, int]], "Page"]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a dataflow in a window; errors in a page fail the test."""
    errors: list[str] = []
    context = browser.new_context()

    def shown(text: str, size: tuple[int, int]) -> Page:
        file = tmp_path / "graph.html"
        file.write_text(page(text))
        found = context.new_page()
        found.set_viewport_size({"width": size[0], "height": size[1]})
        found.on("pageerror", lambda error: errors.append(str(error)))
        found.goto(file.as_uri())
        return found

    yield shown
    context.close()
    assert errors == []


@pytest.mark.integration
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(
    "text", [ten(1), ten(3), modules(), thirty()], ids=["ten", "machines", "modules", "thirty"]
)
def test_graphs_are_readable(show: Open, text: str, size: tuple[int, int]) -> None:
    shown = show(text, size)
    see(shown, ".node .name")
    wait_until(lambda: shown.evaluate(FAULTS) == [], what="readable text")
    shown.get_by_role("button", name="Zoom in").click()
    shown.get_by_role("button", name="Show all").click()
    wait_until(lambda: shown.evaluate(FAULTS) == [], what="readable text at another zoom")
    area = shown.locator(".drawing").bounding_box()
    assert area is not None
    for node in shown.locator(".node .box").all():
        box = node.bounding_box()
        assert box is not None
        assert area["x"] <= box["x"]
        assert box["x"] + box["width"] <= area["x"] + area["width"]


@pytest.mark.integration
@pytest.mark.parametrize("size", [DESK, LAPTOP, PHONE], ids=["desk", "laptop", "phone"])
@pytest.mark.parametrize("count", [12, 32])
def test_a_fleet_fits_with_all_names(show: Open, count: int, size: tuple[int, int]) -> None:
    shown = show(fleet(count), size)
    see(shown, ".node .name")
    assert shown.locator(".node").count() == count
    for _ in range(2):
        wait_until(lambda: shown.evaluate(NAMES) == [], what="all names")
        wait_until(lambda: shown.evaluate(FAULTS) == [], what="readable text")
        shown.get_by_role("button", name="Zoom in").click()
        shown.get_by_role("button", name="Show all").click()
    down = see(shown, ".drawing svg").get_attribute("data-direction") == "down"

    def place(role: str) -> float:
        box = shown.locator(f'[data-node="{role}-1"] .box').bounding_box()
        assert box is not None
        return box["y"] if down else box["x"]

    roles = ["camera-front", "detector", "planner"]
    assert sorted(roles, key=place) == roles


@pytest.mark.integration
def test_edges_of_a_fleet_name_their_outputs(show: Open) -> None:
    shown = show(fleet(12), LAPTOP)
    see(shown, '[data-edge="planner-1>base-driver-1"] .rate', "command")
    assert shown.locator(".label").count() == 18
    see(shown, '[data-edge="planner-2>planner-1"] .rate', "intent as peer")


@pytest.mark.integration
def test_names_at_every_zoom(show: Open) -> None:
    """From the whole fleet to details and back, in the steps of the buttons."""
    shown = show(fleet(32), PHONE)
    drawing = see(shown, ".drawing svg")
    assert drawing.get_attribute("class") == "overview"
    variants = set()
    for name in ["Zoom in"] * 8 + ["Zoom out"] * 14:
        shown.get_by_role("button", name=name).click()
        wait_until(lambda: shown.evaluate(FAULTS) == [], what="readable text")
        variants.add(drawing.get_attribute("class"))
        nodes, names = shown.locator(".node").count(), shown.locator(".node .name").count()
        assert nodes == names == 32
    assert variants == {"overview", "detail"}


@pytest.mark.integration
def test_the_direction_fits_the_window(show: Open) -> None:
    chain: list[dict[str, Any]] = [{"id": "n0", "path": "a.py", "outputs": ["out"]}]
    for number in range(1, 5):
        inputs = {"a": f"n{number - 1}/out"}
        chain.append({"id": f"n{number}", "path": "a.py", "inputs": inputs, "outputs": ["out"]})
    shown = show(json.dumps({"nodes": chain}), (1600, 500))
    see(shown, '.drawing svg[data-direction="right"]')
    shown.set_viewport_size({"width": 390, "height": 900})
    see(shown, '.drawing svg[data-direction="down"]')


@pytest.mark.integration
def test_what_is_selected(show: Open) -> None:
    shown = show(TEXT, DESK)
    see(shown, ".inspector p", "4 nodes, 4 connections")
    shown.locator('[data-edge="arm>plan"].drop').wait_for(state="attached")
    see(shown, '[data-node="camera"]').click()
    see(shown, ".inspector dd", "std/media/v1/Image")
    see(shown, '[data-edge="arm>plan"] .rate', "other/state as state").click()
    see(shown, ".inspector dd", "10, backpressure")
    see(shown, ".inspector dd", "2 s")
    shown.get_by_label("Find a node").fill("view")
    shown.locator('.node.dim[data-node="camera"]').wait_for(timeout=PATIENCE_MS)


@pytest.mark.integration
def test_an_empty_dataflow(show: Open) -> None:
    see(show("nodes: []", DESK), ".inspector p", "0 nodes, 0 connections")
