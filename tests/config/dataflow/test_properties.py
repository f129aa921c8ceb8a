"""Any file loads or raises `ConfigError` with positions; expansion keeps the meaning."""

from __future__ import annotations

import re
import shlex
from typing import Any

from config.parsing import NODES, parse
from hypothesis import given, settings, strategies as st

from dora_config.dataflow.descriptor import Descriptor, Node
from dora_config.dataflow.expand import expand_dataflow
from dora_config.dataflow.loader import parse_dataflow
from dora_config.errors import ConfigError
from dora_config.yaml.writer import dump_yaml

names = st.sampled_from(["a", "b", "a/x", "op", "dora", "", ".", "ä", "x y"])
sources = st.sampled_from(
    [
        "a/x",
        "b/y",
        "a/op/x",
        "dora/timer/millis/5",
        "dora/logs/warn/a",
        "dora/timer/hz/0",
        "a",
        "_mod/i",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats()
    | names
    | sources
    | st.sampled_from(["dynamic", "shell", "http://x", "p.py", "$HOME", "$NO", "5MB", "'", "never"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | sources, inner, max_size=3),
    max_leaves=6,
)
node_fields = st.sampled_from(
    [*Node.model_fields, "_unstable_deploy", "shared-library", "custom", "xyzzy"]
)
nodes = st.dictionaries(node_fields, values, max_size=8) | values
ROOT_FIELDS = [name for name in Descriptor.model_fields if name != "nodes"]
files = st.fixed_dictionaries(
    {"nodes": st.lists(nodes, max_size=3) | values},
    optional=dict.fromkeys([*ROOT_FIELDS, "_unstable_debug", "zzz"], values),
)


YAML_LINE_BREAKS = "[\r\n\x85\u2028\u2029]"


def outcome(text: str) -> None:
    try:
        loaded = parse_dataflow(text, path="flow.yml", environ={"HOME": "/h"})
    except ConfigError as error:
        problems = error.problems
        if not error.errors:
            raise AssertionError("an error without a reason") from error
    else:
        problems = (*loaded.warnings, *loaded.remarks)
    lines = len(re.findall(YAML_LINE_BREAKS, text)) + 2
    for problem in problems:
        assert problem.file == "flow.yml"
        assert 1 <= problem.line <= lines, problem
        assert problem.column >= 1
        assert "\n" not in problem.message


@given(st.text(max_size=100))
@settings(max_examples=150)
def test_any_text(text: str) -> None:
    outcome(text)


@given(st.lists(st.sampled_from([*"-:[]{}#&*!|>'\"%@`?,\n\t ", "a", "nodes", "<<", "id: ", "  "])))
@settings(max_examples=150)
def test_any_text_of_yaml_tokens(parts: list[str]) -> None:
    outcome("".join(parts))


@given(files)
@settings(max_examples=200)
def test_any_values_in_known_fields(data: dict[str, Any]) -> None:
    outcome(dump_yaml(data))


@given(st.integers(0, len(NODES)), st.text(max_size=4))
def test_valid_file_with_an_inserted_text(place: int, noise: str) -> None:
    outcome(NODES[:place] + noise + NODES[place:])


ids = st.from_regex(r"[a-z][a-z0-9_.-]{0,6}", fullmatch=True).filter(lambda name: name != "dora")
seconds = st.floats(0, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
env: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,5}", fullmatch=True),
    texts | st.integers() | st.booleans() | st.builds(dict, __dora_env=st.just("HOST")),
    max_size=3,
)
optional_fields: dict[Any, Any] = {
    "name": texts,
    "description": texts,
    "env": env,
    "args": st.lists(texts).map(lambda words: shlex.join(words)),
    "build": st.just("pip install x\nmake 'a b'"),
    "restart_policy": st.sampled_from(["never", "on-failure", "always"]),
    "max_restarts": st.integers(0, 9),
    "restart_delay": seconds,
    "max_restart_delay": seconds,
    "restart_window": seconds,
    "health_check_timeout": seconds,
    "finish_grace_secs": seconds,
    "startup_timeout": seconds,
    "max_log_size": st.sampled_from(["5MB", 17, "1.5K"]),
    "max_rotated_files": st.integers(1, 100),
    "shared_memory_pool_size": st.integers(0, 1 << 40),
    "min_log_level": st.sampled_from(["INFO", "warn"]),
    "cpu_affinity": st.lists(st.integers(0, 7)),
    "warm": st.sampled_from([False, [], ["numpy", "a.b"]]),
    "pattern": st.sampled_from(["service-server", "action-client"]),
    "send_stdout_as": st.just("out"),
    "output_types": st.just({"out": "std/core/v1/String"}),
    "output_framing": st.just({"out": "arrow-ipc"}),
    "output_metadata": st.just({"out": ["k"]}),
    "deploy": st.sampled_from([{}, {"machine": "m"}, {"labels": {"a": "b"}, "distribute": "scp"}]),
    "git": st.just("https://example.invalid/x"),
}
good_nodes = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["p.py", "program", "$HOME/x", "https://example.invalid/x"]),
        "outputs": st.just(["out", "a/b"]),
    },
    optional=optional_fields,
)
operator_nodes = st.fixed_dictionaries(
    {
        "operators": st.just(
            [
                {
                    "id": "one",
                    "python": "one.py",
                    "outputs": ["out"],
                    "build": "make",
                    "pattern": "service-server",
                    "output_framing": {"out": "arrow-ipc"},
                    "output_metadata": {"out": ["k"]},
                },
                {"id": "two", "python": {"source": "two.py"}, "max_log_size": "1K"},
            ]
        )
    },
    optional={"env": env, "name": texts, "cpu_affinity": st.lists(st.integers(0, 7))},
)


@st.composite
def good_files(draw: st.DrawFn) -> dict[str, Any]:
    """Valid files with edges between their nodes."""
    found = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    listed: list[dict[str, Any]] = []
    for name in found:
        node: dict[str, Any] = {"id": name, **draw(good_nodes | operator_nodes)}
        if "path" in node:
            producer = draw(st.sampled_from(found))
            node["inputs"] = draw(
                st.dictionaries(
                    ids,
                    st.sampled_from(
                        [
                            "dora/timer/hz/30",
                            {"source": "dora/logs/info", "queue_size": 3},
                            {"source": f"{producer}/out", "queue_policy": "backpressure"},
                            {"source": f"{producer}/one/out", "input_timeout": 2.5},
                        ]
                    ),
                    max_size=3,
                )
            )
        listed.append(node)
    root: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "env": env,
                "deploy": st.just({"machine": "root"}),
                "debug": st.just({"enable_debug_inspection": True}),
                "health_check_interval": st.floats(0.1, 100),
                "strict_types": st.booleans(),
                "exit_when_nodes_finish": st.booleans(),
                "type_rules": st.just([{"from": "std/core/v1/Bool", "to": "std/core/v1/UInt8"}]),
            },
        )
    )
    outputs = {f"{node['id']}/{'one/out' if 'operators' in node else 'out'}" for node in listed}
    for node in listed:
        node["inputs"] = {
            name: wanted
            for name, wanted in node.get("inputs", {}).items()
            if isinstance(wanted, str)
            or wanted["source"].startswith("dora/")
            or wanted["source"] in outputs
        }
        if "operators" in node or not node["inputs"]:
            del node["inputs"]
    return {**root, "nodes": listed}


@given(good_files())
@settings(max_examples=150)
def test_expanded_dataflow_resolves_equal(data: dict[str, Any]) -> None:
    environ = {"HOME": "/h"}
    for node in [data, *data["nodes"]]:
        for name, value in node.get("env", {}).items():
            if isinstance(value, str):
                node["env"][name] = value.replace("$", "$$")
    resolved = parse(dump_yaml(data), environ).resolved
    text = expand_dataflow(resolved)
    assert parse(text, environ).resolved == resolved
    assert expand_dataflow(parse(text, environ).resolved) == text
