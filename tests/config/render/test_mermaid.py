"""Mermaid charts."""

from __future__ import annotations

from config.parsing import parse

from dora_config.render.mermaid import mermaid_graph


def test_a_chart() -> None:
    flow = parse("""\
        nodes:
          - {id: end, path: p, inputs: {img: eye.find/image, t: dora/timer/secs/1}}
          - {id: eye.find, path: p, outputs: [image], output_types: {image: std/media/v1/Image}}
          - {id: eye.keep, path: dynamic, inputs: {image: eye.find/image}}
        """)
    assert mermaid_graph(flow.resolved) == (
        "flowchart LR\n"
        '  n0[/"end"/]\n'
        '  subgraph n1["eye"]\n'
        '  n2[\\"find"\\]\n'
        '  n3("keep<br/>dynamic")\n'
        "  end\n"
        '  n4{{"dora/timer/secs/1"}}\n'
        '  n2 -- "image as img [Image]" --> n0\n'
        '  n4 -- "t" --> n0\n'
        '  n2 -- "image [Image]" --> n3\n'
    )


def test_operators_are_listed_in_their_node() -> None:
    flow = parse("nodes: [{id: n, operators: [{id: a, python: a.py}, {id: b, python: b.py}]}]")
    assert "n<br/>(a)<br/>(b)" in mermaid_graph(flow.resolved)


def test_texts_are_escaped() -> None:
    flow = parse("nodes: [{id: n, path: p, name: 'a \"quoted\" <b> #1'}]")
    assert '"a #quot;quoted#quot; #lt;b#gt; #35;1"' in mermaid_graph(flow.resolved)


def test_an_empty_dataflow() -> None:
    assert mermaid_graph(parse("nodes: []").resolved) == "flowchart LR\n"
