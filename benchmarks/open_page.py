"""Measures the page of `dora ui` with a large fleet, in Chromium.

    python benchmarks/open_page.py                # 100 simulated daemons, 1,000 nodes
    python benchmarks/open_page.py --daemons 10

Prints the time to the first view, the frames per second while the graph is shown, and the CPU of
coordinator and `dora ui` for one and for five viewers. Daemons, coordinator and browser share the
machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from fleet_scale import Coordinator, client, coordinator, wait_until
from measure.simulated_daemons import fleet, machine_id, node_ids

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol import control
from dora_config.protocol.dataflow import DataflowSpec

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECONDS = 10.0
VIEWERS = 5
FRAMES = """seconds => new Promise(resolve => {
    const begun = performance.now();
    let count = 0;
    let longest = 0;
    let last = begun;
    const step = now => {
        count += 1;
        longest = Math.max(longest, now - last);
        last = now;
        if (now - begun < seconds * 1000) requestAnimationFrame(step);
        else resolve([count / (now - begun) * 1000, longest]);
    };
    requestAnimationFrame(step);
})"""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")


def start_request(count: int) -> control.StartDataflow:
    """A dataflow in which the nodes of each machine form a chain."""
    nodes: list[ResolvedNode] = []
    for number in range(count):
        before: str | None = None
        for node in node_ids(number):
            source = None if before is None else OutputSource(node=before, output="output")
            nodes.append(
                ResolvedNode(
                    id=node,
                    path="node.py",
                    deploy=ResolvedDeploy(machine=machine_id(number)),
                    inputs={} if source is None else {"input": ResolvedInput(source=source)},
                    outputs=("output",),
                )
            )
            before = node
    resolved = ResolvedDataflow(nodes=tuple(nodes))
    return control.StartDataflow(spec=DataflowSpec(resolved=resolved))


@contextmanager
def page_server(subject: Coordinator) -> Iterator[tuple[psutil.Process, str]]:
    """Run `dora ui`; yield its process and its link."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "dora_config.launcher", "ui", "--no-browser"],
            env=subject.environ | {"DORA_COORDINATOR_PORT": str(subject.where.port)},
            stderr=printed,
        )
        try:
            found: list[str] = []

            def linked() -> bool:
                text = os.pread(printed.fileno(), 4096, 0).decode()
                found[:] = re.findall(r"http://\S+", text)
                return bool(found)

            wait_until(linked, "the link of the page")
            yield psutil.Process(process.pid), found[0]
        finally:
            process.terminate()
            process.wait()


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def share(subject: Coordinator, server: psutil.Process) -> tuple[float, float]:
    """CPU of coordinator and page server in per cent of a core."""
    time.sleep(2)
    before, begun = (subject.cpu(), cpu(server)), time.perf_counter()
    time.sleep(SECONDS)
    scale = 100 / (time.perf_counter() - begun)
    return (subject.cpu() - before[0]) * scale, (cpu(server) - before[1]) * scale


def measure(count: int) -> None:
    from playwright.sync_api import sync_playwright

    with (
        coordinator() as subject,
        client(subject.where),
        fleet(count, subject.where, processes=1) as daemons,
    ):
        wait_until(lambda: daemons.connected == count, "all daemons")
        with client(subject.where) as active:
            active.request(start_request(count))
        with page_server(subject) as (server, link), sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            idle = share(subject, server)
            print(f"no viewer: coordinator {idle[0]:.1f} %, dora ui {idle[1]:.1f} % of a core")
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            begun = time.perf_counter()
            page.goto(link)
            page.get_by_text(machine_id(count - 1), exact=True).wait_for()
            print(f"first view: {time.perf_counter() - begun:.2f} s")
            one = share(subject, server)
            print(f"one viewer: coordinator {one[0]:.1f} %, dora ui {one[1]:.1f} %")
            begun = time.perf_counter()
            page.locator("nav a i.dot").click()
            page.locator(".node").first.wait_for()
            print(f"graph: {time.perf_counter() - begun:.2f} s")
            frames(page, "graph, idle")
            begun = time.perf_counter()
            expand = page.get_by_role("button", name="Expand machines")
            if expand.count():  # a small graph is expanded at first
                expand.click()
            page.locator(".node").nth(count * len(node_ids(0)) - 1).wait_for(state="attached")
            print(f"graph, all nodes: {time.perf_counter() - begun:.2f} s")
            frames(page, "all nodes, idle")
            more = [page.context.new_page() for _ in range(VIEWERS - 1)]
            for another in more:
                another.goto(page.url)
            many = share(subject, server)
            print(f"{VIEWERS} viewers: coordinator {many[0]:.1f} %, dora ui {many[1]:.1f} %")
            browser.close()


def frames(page: Page, what: str) -> None:
    rate, longest = page.evaluate(FRAMES, 5)
    print(f"{what}: {rate:.0f} frames/s, longest {longest:.0f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--daemons", type=int, default=100)
    measure(parser.parse_args().daemons)
    return 0


if __name__ == "__main__":
    sys.exit(main())
