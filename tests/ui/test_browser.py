"""The page in a real browser, with a fleet of three daemons. Console errors fail each test."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser.conditions import PATIENCE_MS, node, see
from support.browser.session import Ui, opened, screenshot
from support.dora import running_dora
from support.fleets.daemons import RealFleet
from support.fleets.held_lease import held_lease
from support.fleets.watched_fleet import MACHINES, watched
from support.runner.linked import children
from support.waiting import wait_until

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.control import ListNodes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route, WebSocketRoute

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("console", "dataflow")]


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


def count(page: Page, what: str) -> int:
    """Number of messages that are `shown` or `dropped`."""
    return int(page.locator(f"[data-{what}]").get_attribute(f"data-{what}") or 0)


def points(page: Page, within: str) -> int:
    """Number of values in a plot."""
    return int(page.locator(f"{within} .plot").first.get_attribute("data-points") or 0)


def pid_of(fleet: RealFleet, name: str) -> int:
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        found = client.request(ListNodes()).nodes
    return next(one.pid for one in found if one.node == name and one.pid is not None)


def test_fleet_view(ui: Ui) -> None:
    page = ui.open()
    for machine in MACHINES:
        row = see(page, "tr", machine)
        assert "connected" in row.inner_text()
    see(page, ".matrix td.ok", re.compile("µs|ms"))
    see(page, "td .meter", "%")
    row = see(page, "tr", "vision")
    see(page, "tr td", re.compile(r"[\d.]+/s"))
    screenshot(page, "ui-fleet")
    row.click()
    node(page, "camera")
    assert "/dataflow/" in page.url


def with_many_links(text: str | bytes) -> str:
    """Replace the links of a state by those of 40 machines, of which one has lost the others."""
    frame = json.loads(text)
    frame.get("patch", {}).pop("links", None)
    if "state" in frame:
        names = [f"truck-{number}" for number in range(40)]
        frame["state"]["links"] = {
            f"{one}>{other}": {
                "machine": one,
                "peer": other,
                "rttUs": 300 + 10 * names.index(one) + names.index(other),
                "state": "connecting" if "truck-7" in (one, other) else "connected",
            }
            for one in names
            for other in names
            if one != other
        }
    return json.dumps(frame)


def test_links_of_many_machines(ui: Ui) -> None:
    page = ui.open()

    def altered(socket: WebSocketRoute) -> None:
        socket.connect_to_server().on_message(lambda text: socket.send(with_many_links(text)))

    page.route_web_socket("**/live", altered)
    page.reload()
    see(page, ".links [role=status]", "1560 links, 78 not connected")
    rows = page.locator(".links tbody tr")
    rows.first.filter(has_text="connecting").wait_for()
    assert rows.count() == 20
    page.get_by_label("Links of a machine").fill("truck-39")
    see(page, ".links [role=status]", "78 links, 2 not connected")
    page.get_by_role("button", name="Only not connected").click()
    rows.nth(2).wait_for(state="detached")
    rows.first.get_by_role("button", name="truck-7", exact=True).click()
    see(page, ".links [role=status]", "78 links, 78 not connected")
    screenshot(page, "ui-links")


def test_what_works_on_the_machines(ui: Ui) -> None:
    page = ui.open()
    page.add_init_script("{ const now = Date.now; Date.now = () => now() + 3600e3; }")
    page.reload()  # durations do not depend on the browser's clock
    see(page, "tr", MACHINES[0])
    with held_lease():
        every = "".join(f"(?=.*{machine})" for machine in MACHINES)
        words = re.compile(rf"{every}.*Upgrading.*for \d+\ss, by ada@desk", re.DOTALL)
        line = see(page, ".notes li", words)
        screenshot(page, "ui-upgrade")
    line.wait_for(state="detached", timeout=PATIENCE_MS)


def test_graph_with_live_edges(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    for name in ("camera", "arm", "detector", "planner", "recorder"):
        node(page, name)
    for machine in MACHINES:
        see(page, ".group text", machine)
    see(page, '[data-edge="arm>recorder"] .rate', re.compile(r"\d+/s"))
    # a straight line has no height, and so is not "visible"
    page.locator('[data-edge="camera>detector"].drop').wait_for(state="attached")
    see(page, '[data-edge="camera>detector"] .dropped', "−")
    node(page, "camera").click()
    see(page, ".inspector h2", "camera")
    see(page, ".inspector .measured", re.compile("/s"))
    page.locator(".drawing svg").press("Escape")
    page.evaluate("document.activeElement.blur()")
    screenshot(page, "ui-graph")
    page.emulate_media(color_scheme="dark")
    page.locator(':root[data-theme="dark"]').wait_for()
    screenshot(page, "ui-graph-dark")
    # The colours do not wait for the modules, which run after the first paint.
    page.route("**/main.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.reload()
    page.locator(':root[data-theme="dark"]').wait_for()


def test_graph_by_keyboard(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "camera")
    drawing = page.locator(".drawing svg")
    drawing.focus()
    drawing.press("ArrowRight")
    see(page, ".node.chosen")
    drawing.press("ArrowRight")
    drawing.press("Enter")
    page.wait_for_url(re.compile("/node/"))
    page.go_back()
    search = page.get_by_label("Find a node")
    search.fill("R")  # in planner, recorder, camera, arm and detector
    see(page, ".toolbar [role=status]", "5 found")
    search.fill("ecorde")
    see(page, ".toolbar [role=status]", "1 found")
    page.locator('.node.dim[data-node="camera"]').wait_for()
    search.press("Enter")
    see(page, ".inspector h2", "recorder")
    page.get_by_role("link", name="Open").press("Enter")
    page.wait_for_url(re.compile("/node/recorder"))
    see(page, "h1", re.compile("Running"))


def test_machines_collapse(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "camera")
    page.get_by_role("button", name="Collapse machines").click()
    see(page, '[data-node="machine robot"]', "2 nodes")
    assert page.locator('[data-node="camera"]').count() == 0
    page.locator('[data-node="machine robot"]').dblclick()
    node(page, "camera")


def test_nodes_and_edges_as_tables_and_why(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "nodes")
    see(page, "tr", "detector")
    page.get_by_label("Search nodes").fill("cam")
    page.locator("tbody tr").filter(has_text="detector").wait_for(state="detached")
    page.goto(f"{ui.address}#/dataflow/{dataflow}/edges")
    row = see(page, "tr", "camera/image")
    assert "robot → gpu" in row.inner_text()
    see(page, "tr", re.compile(r"(µs|ms)"))
    page.goto(f"{ui.address}#/dataflow/{dataflow}/why")
    see(page, ".why .summary")


def test_logs_of_a_node(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "node", "arm")
    see(page, ".line", "step")
    search = page.get_by_label("Search in log lines")
    search.fill("marker")
    # what a robot sends is text
    error = see(page, ".line.error", "<b>of the tool</b>")
    search.fill("")
    page.get_by_label("Level").select_option("warn")
    page.locator(".line.info").first.wait_for(state="detached")
    see(page, ".line.warn", "joint 3")
    search.fill("marker")
    page.locator(".line.warn").first.wait_for(state="detached")
    search.fill("")
    page.get_by_label("Level").select_option("stdout")
    page.get_by_role("button", name="↓ Error").click()
    see(page, ".details pre", "lost a marker")
    assert page.get_by_role("button", name="Follow").count() == 1
    error.wait_for(timeout=PATIENCE_MS)


def test_load_and_parameters_of_a_node(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "node", "arm")
    see(page, ".load .plot")
    before = points(page, ".load")
    wait_until(lambda: points(page, ".load") > before, what="another value")
    page.get_by_label("Name of the parameter").fill("speed")
    page.get_by_label("Value").fill("[1, 2]")
    page.get_by_role("button", name="Set").click()
    see(page, "td code", "[1,2]")
    screenshot(page, "ui-node")
    page.get_by_role("button", name="Delete speed").click()
    page.get_by_role("button", name="Delete parameter").click()
    page.locator("td code").filter(has_text="[1,2]").wait_for(state="detached")


def test_a_drag_keeps_the_selection(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "camera").click()
    see(page, ".inspector h2", "camera")
    box = page.locator(".drawing svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 40, steps=4)
    page.mouse.up()
    assert page.locator(".inspector h2").inner_text() == "camera"
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    see(page, ".inspector h2", "Attention")


def test_the_address_names_the_view(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "nodes")
    row = see(page, "tr.link", "camera")
    page.get_by_text("Skip to content").press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    with ui.context.expect_page():
        row.get_by_role("link").click(modifiers=["Control"])
    assert page.url.endswith(f"#/dataflow/{dataflow}/nodes")
    page.goto(f"{ui.address}#/dataflow/{dataflow[:-2]}")
    see(page, ".empty", "This dataflow is not known")
    assert page.locator(".banner").count() == 0


def test_inputs_of_a_node_change(ui: Ui, fleet: RealFleet, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "node", "recorder")
    see(page, ".ports li", "arm/angle")
    words = ("--dataflow", dataflow)
    fleet.dora("node", "connect", "arm/state", "recorder/state", *words)
    added = see(page, ".ports li", "arm/state")
    fleet.dora("node", "disconnect", "arm/state", "recorder/state", *words)
    added.wait_for(state="detached", timeout=PATIENCE_MS)


def test_an_image_that_changes(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "output", "camera", "image")
    see(page, "figure img")
    page.wait_for_function("() => document.querySelector('figure img').naturalWidth === 160")
    pixels = """() => {
        const image = document.querySelector('figure img');
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [160, 120];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return [...canvas.getContext('2d').getImageData(0, 60, 160, 1).data].join();
    }"""
    before = page.evaluate(pixels)
    wait_until(lambda: page.evaluate(pixels) != before, what="another image")
    see(page, "figcaption", "160 × 120 rgb8")
    # The viewer's rate: of 30 messages a second, most are not shown.
    wait_until(lambda: count(page, "dropped") > 10, what="messages that are not shown")
    screenshot(page, "ui-image")


def test_a_plot_that_moves(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "output", "arm", "angle")
    plot = see(page, ".output .plot")
    see(page, ".u-legend", "[1]")
    version = plot.get_attribute("data-version")
    page.wait_for_function(
        "old => document.querySelector('.output .plot').dataset.version !== old", arg=version
    )
    page.get_by_label("at most").select_option("10")
    wait_until(lambda: points(page, ".output") > 15, what="a longer plot")
    screenshot(page, "ui-plot")
    page.goto(f"{ui.address}#/dataflow/{dataflow}/output/arm/spectrum")
    wait_until(lambda: points(page, ".output") == 64, what="the whole array")


def test_boxes_over_an_image_beside_a_plot(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "output", "camera", "image")
    see(page, "figure img")
    page.get_by_text("Draw over it").click()
    page.get_by_role("checkbox", name="detector/boxes").check()
    see(page, ".overlay text", "mark 90")
    page.get_by_label("Beside").select_option("arm/angle")
    page.wait_for_url(re.compile("/output/camera/image/arm/angle"))
    see(page, ".output-pane h2", "arm/angle")
    see(page, ".output .plot")
    see(page, ".overlay text", "mark 90")
    screenshot(page, "ui-outputs")
    images = page.locator(".output-pane").first.locator("img")
    first = images.get_attribute("data-timestamp")
    wait_until(lambda: images.get_attribute("data-timestamp") != first, what="another image")
    page.get_by_label("Close arm/angle").click()
    page.wait_for_url(re.compile("/output/camera/image$"))
    see(page, ".overlay text", "mark 90")
    page.get_by_role("checkbox", name="detector/boxes").uncheck()
    page.locator(".overlay").wait_for(state="detached")


def test_an_edge_over_the_last_minutes(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "edges")
    see(page, "tr", "camera/image").click()
    see(page, ".past h3", "Messages and drops")
    before = points(page, ".past")
    assert before > 0
    wait_until(lambda: points(page, ".past") > before, what="another value")
    page.goto(f"{ui.address}#/dataflow/{dataflow}")
    see(page, '[data-edge="camera>detector"] .rate').click()
    see(page, ".inspector .past h3", "Latency")


def test_long_log_lines_wrap(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "logs")
    page.set_viewport_size({"width": 390, "height": 780})
    line = see(page, ".line", "step")
    assert re.match(r"\d\d:\d\d:\d\d", see(page, ".line time").inner_text())
    page.get_by_label("Search in log lines").fill("a long line")
    line = see(page, ".line", "a long line")
    row = line.bounding_box()
    page.get_by_role("button", name="Wrap").click()
    see(page, ".lines.wrap")
    wrapped = line.bounding_box()
    assert row is not None
    assert wrapped is not None
    assert wrapped["height"] > 3 * row["height"]
    lines = page.locator(".lines").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert lines[0] <= lines[1]
    screenshot(page, "ui-logs-small")
    # The list is as long as its lines.
    error = page.locator(".lines").evaluate(
        "one => one.firstElementChild.nextElementSibling.offsetHeight"
        " - [...one.querySelectorAll('.line')].reduce((sum, line) => sum + line.offsetHeight, 0)"
    )
    assert abs(error) < 2
    page.get_by_role("button", name="Wrap").click()
    page.locator(".lines.wrap").wait_for(state="detached")
    page.reload()
    see(page, ".lines.wrap")  # the default on a narrow screen


def test_structs_and_text(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow, "output", "arm", "pose")
    see(page, ".output th", "frame")
    see(page, ".output td", "tool")
    page.goto(f"{ui.address}#/dataflow/{dataflow}/output/arm/state")
    see(page, ".output .values", re.compile(r"moving \d+"))


def test_a_hidden_page_costs_nothing(ui: Ui, fleet: RealFleet, dataflow: str) -> None:
    """The subscription ends on the robot too, and starts again with the page."""

    def inspectors() -> list[int]:
        return children(fleet.daemons["robot"].pid, "dora_daemon.inspection.inspector")

    page = ui.open("dataflow", dataflow, "output", "camera", "image")
    see(page, "figure img")
    assert inspectors()
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    wait_until(lambda: not inspectors(), what="the end of the inspector")
    before = count(page, "shown")
    page.evaluate(hide, False)
    wait_until(lambda: count(page, "shown") != before, what="more images")
    assert inspectors()


def test_recordings(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    page.get_by_role("button", name="Record", exact=True).click()
    see(page, ".messages div", "is being recorded")
    page.get_by_role("link", name="Recordings").click()
    row = see(page, "tr", re.compile(r"vision.*recording", re.DOTALL))
    row.locator("a", has_text="robot").wait_for()
    row.locator("td.number").filter(has_text=re.compile(r"[1-9]")).first.wait_for()
    page.get_by_role("button", name="Stop recording").click()
    see(page, "tr .status.done", "ended")
    screenshot(page, "ui-recordings")
    with page.expect_download() as downloading:
        page.locator("tr a", has_text="robot").first.click()
    file = downloading.value.path()
    assert file.read_bytes().startswith(b"\x89MCAP0\r\n")
    file.unlink()
    page.get_by_label("Outputs").fill("camera/*")
    page.get_by_label("Seconds").fill("1")
    page.get_by_role("button", name="Start recording").click()
    page.locator("tr .status.done").nth(1).wait_for()  # after one second


def test_small_screen(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    page.set_viewport_size({"width": 390, "height": 780})
    node(page, "camera")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Fleet").click()
    see(page, "h1", "Fleet")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Fleet").click()  # the view that is shown already
    page.locator(".side").wait_for(state="hidden")
    page.goto(f"{ui.address}#/dataflow/{dataflow}/why")
    text = see(page, ".timeline li span:last-child").bounding_box()
    assert text is not None
    assert text["width"] > 250
    screenshot(page, "ui-small")


def test_a_dead_node_turns_red(ui: Ui, fleet: RealFleet, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "recorder")
    os.kill(pid_of(fleet, "recorder"), signal.SIGKILL)
    node(page, "recorder", "Failed")
    red = page.locator('[data-node="recorder"] .box').evaluate(
        "one => getComputedStyle(one).stroke"
    )
    assert red == "rgb(192, 38, 38)"
    see(page, ".inspector .status.bad", "Failed")
    screenshot(page, "ui-failed")
    page.goto(f"{ui.address}#/dataflow/{dataflow}/why")
    see(page, ".cause", "recorder")
    screenshot(page, "ui-why")
    page.goto(f"{ui.address}#/dataflow/{dataflow}")
    page.get_by_role("button", name="recorder").click()
    page.get_by_role("link", name="Open").click()
    page.get_by_role("button", name="Restart").click()
    see(page, ".events li.problem", "SIGKILL")
    page.get_by_role("button", name="Restart node").click()
    see(page, "h1", re.compile("Running"))
    see(page, ".messages div", "recorder was restarted")


def test_a_failed_node_is_brought_into_view(ui: Ui, fleet: RealFleet, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "recorder", "Running")
    drawing = page.locator(".drawing svg")
    page.get_by_label("Find a node").fill("camera")
    page.get_by_label("Find a node").press("Enter")
    for _ in range(8):
        page.get_by_role("button", name="Zoom in").click()

    def inside() -> bool:
        box, area = page.locator('[data-node="recorder"]').bounding_box(), drawing.bounding_box()
        assert box is not None
        assert area is not None
        return (
            area["x"] <= box["x"]
            and box["x"] + box["width"] <= area["x"] + area["width"]
            and area["y"] <= box["y"]
            and box["y"] + box["height"] <= area["y"] + area["height"]
        )

    wait_until(lambda: not inside(), what="a view without the node")
    os.kill(pid_of(fleet, "recorder"), signal.SIGKILL)
    wait_until(inside, what="the failed node")
    fleet.dora("node", "restart", "recorder", "--dataflow", dataflow)
    node(page, "recorder", "Running")


def test_a_stop_is_confirmed(ui: Ui, fleet: RealFleet) -> None:
    uuid = fleet.start(watched(fleet.workspace), "--name", "second")
    page = ui.open("dataflow", uuid)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    node(page, "camera")
    page.get_by_role("button", name="Stop", exact=True).click()
    see(page, "dialog h2", "Stop second?")
    screenshot(page, "ui-confirmation")
    page.get_by_role("button", name="Stop dataflow").click()
    see(page, "h1", "Finished")
    see(page, ".messages div", "second has stopped")
    node(page, "camera", "Ended")
    see(page, ".inspector", "This dataflow has ended")
    page.get_by_role("button", name="Start again").wait_for()


def test_an_answer_leaves_the_next_question_open(ui: Ui, dataflow: str) -> None:
    page = ui.open("dataflow", dataflow)
    node(page, "camera")
    waiting: list[Route] = []
    page.route("**/stop", lambda route: waiting.append(route))
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop dataflow").click()
    page.get_by_role("button", name="Working…").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Restart").click()
    see(page, "dialog h2", "Restart vision?")
    waiting[0].fulfill(json={})
    see(page, ".messages div", "vision has stopped")
    see(page, "dialog h2", "Restart vision?")
    page.get_by_role("button", name="Cancel").click()


def test_coordinator_restarts_under_an_open_page(ui: Ui, fleet: RealFleet, dataflow: str) -> None:
    quiet = ui.open("dataflow", dataflow, "node", "recorder")
    quiet.locator(".logs").wait_for()
    page = ui.open("dataflow", dataflow)
    node(page, "camera")
    fleet.coordinator.process.kill()
    see(page, ".banner", "No connection to the coordinator")
    see(quiet, ".logs .text-warn", "connection lost")
    node(page, "camera")  # its last state
    fleet.restart_coordinator()
    quiet.locator(".logs .text-warn").wait_for(state="detached", timeout=PATIENCE_MS)
    page.locator(".banner").wait_for(state="detached", timeout=PATIENCE_MS)
    node(page, "camera")
    see(page, '[data-edge="arm>planner"] .rate', re.compile(r"[1-9]\d*/s"))


@pytest.fixture
def read_only(fleet: RealFleet, browser: Browser) -> Iterator[Ui]:
    words = ("ui", "--no-browser", "--read-only", "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=fleet.workspace.path) as process:
        ui = opened(process, browser)
        yield ui
        ui.context.close()
        process.interrupt()
        process.wait().succeeded()


def test_read_only(read_only: Ui, dataflow: str) -> None:
    page = read_only.open("dataflow", dataflow)
    node(page, "camera")
    see(page, ".tag", "read-only")
    assert page.get_by_role("button", name="Stop", exact=True).count() == 0
    answer = page.request.post(
        f"{read_only.address}api/dataflows/{dataflow}/stop",
        data={},
        headers={"Origin": read_only.origin},
    )
    assert answer.status == 403
    assert read_only.errors == []


def test_without_the_link_nothing_is_served(ui: Ui) -> None:
    paths = ("", "static/js/main.js", "api/dataflows", "?key=wrong")
    for address in (one + path for one in (ui.address, f"{ui.origin}/") for path in paths):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address, timeout=10)
        refused.value.close()
        assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as again:
        urllib.request.urlopen(ui.link, timeout=10)
    again.value.close()
    assert again.value.code == 403
