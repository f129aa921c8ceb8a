"""The drawn page: complete, offline, and safe against what names hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from config.parsing import parse

from dora_config import graph_page

TEXT = """\
nodes:
  - id: camera
    path: camera.py
    description: 'sees <b> & "quotes" </script><script>alert(1)</script>'
    inputs: {tick: dora/timer/millis/33}
    outputs: [image, spare]
    output_types: {image: std/media/v1/Image}
    deploy: {machine: robot}
  - id: plan
    path: plan.py
    inputs:
      image: camera/image
      state: {source: arm/state, queue_policy: backpressure, input_timeout: 2}
      logs: dora/logs/warn
    outputs: [command]
  - id: arm
    operators:
      - {id: op, python: arm.py, inputs: {command: plan/command}}
      - {id: other, python: other.py, outputs: [state]}
  - {id: view, path: dynamic, inputs: {image: camera/image}}
"""


def page(text: str = TEXT) -> str:
    # the arm's state is read under the name of its operator
    return graph_page(parse(text.replace("arm/state", "arm/other/state")).resolved, "flow <1>.yml")


def drawing(html: str) -> ElementTree.Element:
    (svg,) = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return ElementTree.fromstring(svg)


def test_the_page_is_well_formed_and_needs_no_network() -> None:
    class Collector(HTMLParser):
        attributes: list[tuple[str, str]] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.attributes += [(name, value or "") for name, value in attrs]

    html = page()
    Collector().feed(html)
    assert not [pair for pair in Collector.attributes if pair[0] in ("src", "href")]
    assert re.findall(r"https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]
    assert "@" not in re.sub(r"@media", "", html)


def test_every_node_edge_and_virtual_source_is_drawn() -> None:
    svg = drawing(page())
    classes = [element.get("class", "").split() for element in svg.iter()]
    assert sum("node" in names for names in classes) == 4
    assert sum("pill" in names for names in classes) == 2
    assert sum("edge" in names for names in classes) == 6
    assert sum("virtual" in names for names in classes) == 2
    assert sum("backpressure" in names for names in classes) == 1
    texts = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert {"camera", "every 33 ms", "logs warn", "spare", "other/state"} <= set(texts)


def test_type_and_queue_of_an_edge() -> None:
    titles = [element.text for element in drawing(page()).iter() if element.tag.endswith("title")]
    assert "camera/image → plan/image\nstd/media/v1/Image\nqueue: 10, drop_oldest" in titles
    assert "arm/other/state → plan/state\nqueue: 10, backpressure\ntimeout: 2 s" in titles


def test_names_cannot_break_out() -> None:
    html = page()
    assert "<script>alert" not in html
    assert html.count("</script>") == 1
    assert "<title>flow &lt;1&gt;.yml</title>" in html


def test_details_of_nodes() -> None:
    (data,) = re.findall(r"const details = (.*);\n", page())
    details = dict(json.loads(data)["camera"])
    assert details["runs on"] == "machine robot"
    assert details["outputs"] == "image: std/media/v1/Image\nspare"
    assert details["inputs"] == "tick ← dora/timer/millis/33"


def test_an_empty_dataflow() -> None:
    assert "0 nodes, 0 connections" in page("nodes: []")
    assert "1 node, 0 connections" in page("nodes: [{id: a, path: p}]")
