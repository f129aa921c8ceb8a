"""Every mistake in a dataflow file has a message, line and column."""

from __future__ import annotations

import pytest
from config.parsing import errors, node, parse, warnings, with_node

ROOT = [
    ("", "1:1: the file is empty: expected a mapping with a list of `nodes`"),
    ("- id: a", "1:1: found a list: expected a mapping with a list of `nodes`"),
    ("nodes: 5", "1:8: nodes: expected a list, found 5"),
    ("nodes:", "1:1: field `nodes` is required"),
    ("env: {}", "1:1: field `nodes` is required"),
    ("nodez: []", "1:1: unknown field `nodez` (did you mean `nodes`?)"),
    ("nodes: []\nxyzzy: 1", "2:1: unknown field `xyzzy`, expected one of debug, deploy, env"),
    ("nodes: []\ncommunication: {}", "dora 0.x"),
    ("nodes: []\ncommunication:", "2:1: unknown field `communication` (dora 0.x"),
    ("nodes: []\npublish_all_messages_to_zenoh: true", "enable_debug_inspection"),
    ("nodes: []\nhealth_check_interval: 0", "health_check_interval: must be greater than 0"),
    ("nodes: []\nhealth_check_interval: .inf", "must be a finite number of seconds, found inf"),
    ("nodes: []\nhealth_check_interval: .nan", "must be a finite number of seconds, found nan"),
    ("nodes: []\nstrict_types: 1", "strict_types: expected true or false, found 1"),
    ('nodes: []\nstrict_types: "yes"', 'strict_types: expected true or false, found "yes"'),
    ("nodes: []\nexit_when_nodes_finish: no", 'expected true or false, found "no"'),
    ("nodes: []\ndebug: {enable: true}", "2:9: debug: unknown field `enable`"),
    ("nodes: []\ndebug: true", "2:8: debug: expected a mapping"),
    ("nodes: []\ntype_rules: [{from: a}]", "type rule 1: field `to` is required"),
    ("nodes: []\ntype_rules: [{from: a, to: b, x: 1}]", "type rule 1: unknown field `x`"),
    ("nodes: []\nenv: [A]", "2:1: env: expected a mapping"),
    ("nodes: []\nenv: {A: $NO}", "2:10: the dataflow: env A: environment variable $NO is not"),
    (
        "nodes: []\ndeploy: {a: 1}\n_unstable_deploy: {}",
        "`_unstable_deploy` (it is the old name of `deploy`",
    ),
    ("nodes:\n  - 5", "2:5: node 1: expected a mapping of names to values, found 5"),
    ("nodes:\n  - path: a", "2:5: node 1: field `id` is required"),
    ("nodes:\n  - {id: a, path: x}\n  - {id: a, path: y}", '3:10: duplicate node ID "a", first on'),
]


@pytest.mark.parametrize(("text", "expected"), ROOT, ids=[text[:40] for text, _ in ROOT])
def test_mistakes_at_the_root(text: str, expected: str) -> None:
    found = errors(text)
    assert any(expected in error for error in found), found


# Each stands below `id: n` in a file in which that is line 3.
NODE = [
    ("path: p\nouputs: [x]", '5:5: node "n": unknown field `ouputs` (did you mean `outputs`?)'),
    ("path: p\nouputs:", '5:5: node "n": unknown field `ouputs` (did you mean `outputs`?)'),
    ("custom:\npath: p", '4:5: node "n": unknown field `custom` (dora 0.x'),
    ("path: p\nxyzzy: 1", "unknown field `xyzzy`, expected one of args, branch, build"),
    ("custom: {source: p}", '4:5: node "n": unknown field `custom` (dora 0.x'),
    ("path: p\nqueue_size: 1", "it belongs to an input"),
    (
        "path: p\ninputs: {i: {source: a/b, compress: gif}}",
        'input "i": compress codec: expected one of jpeg, h264, lz4, zstd, found "gif"',
    ),
    (
        "path: p\ninputs: {i: {source: a/b, compress: {codec: jpeg, level: 3}}}",
        '5:31: node "n": input "i": jpeg has a `quality`, no `level`',
    ),
    (
        "path: p\ninputs: {i: {source: a/b, compress: {codec: zstd, quality: 3}}}",
        'input "i": zstd has a `level`, no `quality`',
    ),
    (
        "path: p\ninputs: {i: {source: a/b, compress: {codec: lz4, level: 13}}}",
        "the highest level of lz4 is 12",
    ),
    ("path: p\ninputs: {i: {source: a/b, compress: {codec: jpeg, quality: 101}}}", "quality"),
    ("path: [5]", '4:5: node "n": path: expected a text, found a list'),
    ('path: ""', "path: must not be empty"),
    ("outputs: [x]", '3:5: node "n" has no program: expected exactly one of path'),
    ("path: p\noperator: {python: a.py}", "has `path` and `operator`: expected exactly one"),
    ("path: p\nmodule: m.yml", "has `path` and `module`: expected exactly one of"),
    ("path: p\nhub: x/y", "`hub` references are not supported"),
    ("path: p\nparams: {a: 1}", "`params` are not allowed on standard nodes"),
    ("path: p\nargs: --name 'x", "invalid quoting in node args: a quote is not closed"),
    ("path: p\nargs: x \\", "invalid quoting in node args: nothing follows the last backslash"),
    (
        "path: p\nargs: " + "x" * 1_000_000,  # unbounded, splitting it takes half a minute
        "args: node args must not be longer than 131072 characters, found 1000000",
    ),
    ("path: p\nargs: {a: 5}", "args: expected a text, found a mapping"),
    ('path: p\nargs: "a\\0b"', "args: must not contain a NUL character"),
    ('path: "a\\0b"', "path: must not contain a NUL character"),
    ('path: p\nbuild: "a\\0b"', "build: must not contain a NUL character"),
    ('path: p\nenv: {A: "a\\0b"}', "must not contain a NUL character"),
    ("path: p\nbuild: pip 'x", "build: invalid quoting in build command"),
    ("path: p\npath_sha256: abc", "path_sha256: does not match"),
    (f"path: p\npath_sha256: {'a' * 64}", "only allowed when `path` is an http(s) URL"),
    ("path: shell", "a shell node needs `args`"),
    ("path: p\nbranch: main", "`branch` needs a repository: `git` source required"),
    ("path: p\ngit: u\nbranch: b\ntag: t", '7:5: node "n": only one of branch, tag and rev is'),
    ("path: p\ngit: u\ntag: [1.0]", "tag: expected a text, found a list"),
    (
        "path: p\nenv: {A: [1]}",
        'environment variable "A": expected a text, number or boolean, found a list',
    ),
    ("path: p\n'[key]': 1", '5:5: node "n": unknown field `[key]`'),
    ("path: p\nenv: {'[key]': [1]}", '5:11: node "n": environment variable "[key]": expected a'),
    ("path: p\nenv: {A: {x: 1}}", "or `{__dora_env: NAME}`"),
    ("path: p\nenv: {A: {__dora_env: 'a b'}}", "invalid name of an environment variable 'a b'"),
    ("path: p\nenv: {A=B: 1}", "invalid name of an environment variable 'A=B'"),
    ("path: p\nenv: {'': 1}", "invalid name of an environment variable ''"),
    ("path: p\nenv: {A: $NO}", '5:14: node "n": env A: environment variable $NO is not defined'),
    ("path: p\noutputs: [a b]", "contains invalid character ' '"),
    ("path: p\noutputs: [a//b]", "has an empty path segment"),
    ("path: p\noutputs: {a: 1}", "outputs: expected a list, found a mapping"),
    (
        "path: p\ninputs: [source/out]",
        "inputs: expected a mapping of names to values, found a list",
    ),
    ("path: p\ninputs: {'a b': source/out}", "input id 'a b' contains invalid character ' '"),
    ("path: p\noutput_framing: {a: raw}", '`output_framing` contains "a", which is not among its'),
    ("path: p\noutputs: [a]\noutput_framing: {a: rw}", "expected one of raw, arrow-ipc"),
    ("path: p\noutput_metadata: {a: [k]}", '`output_metadata` contains "a", which is not among'),
    ("path: p\npattern: server", "expected one of service-server, service-client"),
    ("path: p\npattern: service-server", "`pattern` service-server needs an output"),
    ("path: p\nmin_log_level: loud", "unknown log level 'loud': expected one of stdout, trace"),
    ("path: p\nmin_log_level: wran", 'did you mean "warn"?'),
    (
        "path: p\nmin_log_level: 3",
        "min_log_level: expected one of stdout, trace, debug, info, warn, error, found 3",
    ),
    ("path: p\nmax_log_size: 5 parsecs", "unknown byte size unit 'parsecs'"),
    ("path: p\nmax_log_size: -5", "size must not be negative"),
    (
        "path: p\nmax_log_size: [1]",
        "expected a size in bytes, or a text such as 50MB, found a list",
    ),
    ("path: p\nmax_rotated_files: 0", "max_rotated_files: must be at least 1, found 0"),
    ("path: p\nmax_rotated_files: -1", "max_rotated_files: must be at least 1, found -1"),
    ("path: p\nmax_rotated_files: 101", "must not exceed 100, found 101"),
    ("path: p\nrestart_policy: on_failure", 'did you mean "on-failure"?'),
    ("path: p\nrestart_policy: 1", "expected one of never, on-failure, always, found 1"),
    ("path: p\nmax_restarts: -1", "max_restarts: must not be negative, found -1"),
    ("path: p\nmax_restarts: 1.5", "max_restarts: expected a whole number, found 1.5"),
    ("path: p\nmax_restarts: 99999999999999999999999", "max_restarts: "),
    ("path: p\nrestart_delay: -1", 'node "n": restart_delay: must be at least 0 seconds, found -1'),
    ("path: p\nmax_restart_delay: .nan", "max_restart_delay: must be a finite number of seconds"),
    ("path: p\nrestart_window: 1e99", "restart_window: must be at most 1e+09 seconds"),
    ("path: p\nhealth_check_timeout: soon", 'expected a number of seconds, found "soon"'),
    (
        "path: p\nfinish_grace_secs: true",
        "finish_grace_secs: expected a number of seconds, found true",
    ),
    ("path: p\nfinish_grace_secs: " + "9" * 30, "must be between 0 and 1e+09 seconds"),
    ("path: p\nstartup_timeout: -1", "startup_timeout: must be at least 0 seconds"),
    ("path: p\nshared_memory_pool_size: big", "shared_memory_pool_size: invalid size 'big'"),
    ("path: p\ncpu_affinity: [0, -1]", "cpu_affinity item 2: must not be negative, found -1"),
    ("path: p\ncpu_affinity: 1", "cpu_affinity: expected a list, found 1"),
    ("path: p\nwarm: numpy", 'warm: expected false or a list of Python modules, found "numpy"'),
    ("path: p\nwarm: true", "warm: expected false or a list of Python modules, found true"),
    ("path: p\nwarm: [a-b]", "warm: expected the name of a Python module, such as numpy"),
    ("path: p\ndeploy: {machin: a}", "deploy: unknown field `machin` (did you mean `machine`?)"),
    ("path: p\ndeploy: {labels: {gpu: }}", "labels gpu: expected a text, found nothing"),
    ("path: p\ndeploy: {labels: {'a b': x}}", "label key 'a b' contains invalid character ' '"),
    ("path: p\ndeploy: {distribute: ftp}", 'expected one of local, scp, http, found "ftp"'),
    ("path: p\nmachine: a", "it belongs in `deploy`"),
]


@pytest.mark.parametrize(("fields", "expected"), NODE, ids=[fields[:50] for fields, _ in NODE])
def test_mistakes_in_a_node(fields: str, expected: str) -> None:
    found = errors(with_node(fields))
    assert any(expected in error for error in found), found


IDS = [
    ("''", "node id must not be empty"),
    ("dora", "is reserved"),
    (".a", "must not start with '.'"),
    ("my node", "contains invalid character ' ': allowed are letters, digits, '_', '.' and '-'"),
    ("1e+5", "contains invalid character '+'"),
    ("[a]", "expected a text, found a list"),
]


@pytest.mark.parametrize(("written", "expected"), IDS)
def test_mistakes_in_a_node_id(written: str, expected: str) -> None:
    (error,) = errors(f"nodes:\n  - id: {written}\n    path: p\n")
    assert expected in error
    assert error.startswith("2:")


INPUTS = [
    ("source", "input must start with `<source>/`"),
    ("sorce/out", 'node "sorce" does not exist (did you mean "source/out"?)'),
    ("source/uot", 'node "source" has outputs out, other (did you mean "source/out"?)'),
    ("elsewhere/thing", 'node "elsewhere" does not exist, known nodes: source, n'),
    ("elsewhere/other", 'did you mean "source/other"?'),
    ("dora/xyz", "unknown dora input 'dora/xyz'"),
    ("dora/timer/secs", "must specify unit and value"),
    ("_mod/x", "`_mod/` is an input of a module and allowed in module files only"),
    ("5", "input must start with `<source>/`, found '5'"),
    ("[a]", "expected a mapping of names to values, found a list"),
    ("{queue_size: 1}", "field `source` is required"),
    ("", "expected a mapping of names to values, found nothing"),
    ("{source: source/out, queue_siz: 1}", "unknown field `queue_siz` (did you mean `queue_size`"),
    ("{source: source/out, queue_size: -1}", "queue_size: must not be negative, found -1"),
    ("{source: source/out, queue_size: many}", 'queue_size: expected a whole number, found "many"'),
    ("{source: source/out, queue_size: 16001}", "queue_size: must not exceed 16000, found 16001"),
    ("{source: source/out, queue_policy: drop-oldest}", 'did you mean "drop_oldest"?'),
    ("{source: source/out, input_timeout: -3}", 'input "x": input_timeout: must be at least 0'),
    ("{source: source/out, input_timeout: x}", 'expected a number of seconds, found "x"'),
]


@pytest.mark.parametrize(("written", "expected"), INPUTS)
def test_mistakes_in_an_input(written: str, expected: str) -> None:
    found = errors(with_node(f"path: p\ninputs:\n  x: {written}"))
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith("6:")
    assert '"n"' in found[0] or "`n/x`" in found[0]


OPERATORS = [
    ("operator: {}", "has no program: expected `python: FILE`"),
    ("operator: {shared-library: x}", "`shared-library` operators are not supported"),
    ("operator: {python: {source: a.py, conda_env: x}}", "`conda_env` is not supported"),
    ("operator: {python: {}}", "field `source` is required"),
    ("operator: {python: [5]}", "expected a mapping"),
    ("operator: {id: a/b, python: a.py}", "operator id \"a/b\" must not contain '/'"),
    ("operators: []", "`operators` must contain at least one operator"),
    ("operators: [{python: a.py}]", "operator 1: field `id` is required"),
    ("operators: [{id: a, python: a.py}, {id: a, python: b.py}]", 'duplicate operator id "a"'),
    ("operators: [{id: a/b, python: a.py}]", "must not contain '/'"),
    (
        "operators: [{id: a, python: a.py, min_log_level: info},"
        " {id: b, python: b.py, min_log_level: info}]",
        "at most one operator may set `min_log_level`",
    ),
    ("operator: {python: a.py}\noutputs: [x]", "not allowed on operator nodes (move it into the"),
    ("operator: {python: a.py}\nrestart_policy: always", "operator nodes accept only cpu_affinity"),
    ("operators: [{id: a, python: a.py}]\nargs: x", "not allowed on operators nodes"),
]


@pytest.mark.parametrize(("fields", "expected"), OPERATORS)
def test_mistakes_in_operators(fields: str, expected: str) -> None:
    found = errors(with_node(fields))
    assert any(expected in error for error in found), found


def test_all_mistakes_are_reported_at_once_in_file_order() -> None:
    found = errors("""\
        nodes:
          - id: a b
            path: a.py
          - id: b
            pth: b.py
            outputs: [imgae]
          - id: c
            path: c.py
            restart_policy: sometimes
            inputs: {x: d, z: {source: d/out, queue_siz: 1}}
          - id: d
            path: d.py
            outputs: [out]
          - id: d
            path: e.py
        """)
    assert [error.split(":")[0] for error in found] == ["2", "5", "9", "10", "10", "14"]


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    found = errors(
        f'nodes:\n  - {{id: "\\e[31m\\n", path: p}}\n  - {{id: "{"é" * 5000}", path: p}}\n'
    )
    assert len(found) == 2
    assert all(error.isprintable() and len(error) < 2100 for error in found)


def test_thousands_of_mistakes_are_reported() -> None:
    lines = [f"  - {{id: n{n}, path: p, inputs: {{x: n{n}/out, y: m{n}/out}}}}" for n in range(500)]
    assert len(errors("nodes:\n" + "\n".join(lines))) == 1000


def test_old_names_are_accepted_without_a_warning() -> None:
    text = """\
        _unstable_debug: {enable_debug_inspection: true}
        nodes:
          - id: a
            path: a.py
            _unstable_deploy: {machine: robot, labels: {gpu: "true"}, distribute: scp}
        """
    loaded = parse(text)
    assert loaded.resolved.debug_inspection
    assert loaded.resolved.node("a").deploy.machine == "robot"
    assert loaded.resolved.node("a").deploy.distribute == "http"
    assert warnings(text) == []


def test_mistake_under_an_old_name_has_a_position() -> None:
    (error,) = errors("nodes:\n  - id: a\n    path: p\n    _unstable_deploy: {machin: x}\n")
    assert error.startswith('4:24: node "a": _unstable_deploy: unknown field `machin`')


WARNINGS = [
    ("path: p\ninputs: {x: {source: source/out, queue_size: 0}}", "queue_size 0 is treated as 1"),
    (
        "path: p\ninputs: {x: {source: dora/timer/secs/1, input_timeout: 3}}",
        "input `n/x`: input_timeout has no effect on a timer",
    ),
    (
        "path: p\ninputs: {x: {source: dora/logs, queue_policy: backpressure}}",
        "input `n/x`: queue_policy backpressure has no effect on log entries",
    ),
    (
        "path: p\noutputs: [a]\nsend_stdout_as: a\n"
        "inputs: {x: {source: n/a, queue_policy: backpressure}}",
        "input `n/x`: queue_policy backpressure has no effect on log entries and printed lines",
    ),
    ("path: p\noutputs: [a, a]", 'output "a" is listed twice'),
    (
        "operator: {python: p, inputs: {x: {source: source/out, queue_size: 0}}}",
        'operator "op": input "x": queue_size 0 is treated as 1',
    ),
    ("path: p\nmax_restarts: 3", "`max_restarts` has no effect while restart_policy is never"),
    (
        "path: p\nenv: {LD_PRELOAD: x}",
        "environment variable LD_PRELOAD is reserved and is ignored",
    ),
    ("path: p\nenv: {DORA_ZENOH_X: x}", "DORA_ZENOH_X is reserved"),
    ("path: p\ninputs: {x: dora/logs/warn/sorce}", 'did you mean "source"?'),
    ("path: p\nbuild: make && make install", "'&&' is an argument of the program"),
    ("path: p\nbuild: make; make install", "'make;' is an argument of the program"),
    ("operator: {python: p, build: a | b}", "'|' is an argument of the program"),
    ("path: dynamic\nargs: x", "`args` has no effect on a dynamic node"),
    ("path: p\noutputs: [a]\nsend_stdout_as: a\nsend_logs_as: a", "are the same output"),
    (
        "path: p\noutputs: [a]\nsend_stdout_as: x",
        "not among its outputs: nothing is sent (add it: `outputs: [a, x]`)",
    ),
    (
        "operators: [{id: b, python: p, outputs: [c]},"
        " {id: op, python: p, outputs: [a], send_logs_as: x}]",
        'operator "op": `send_logs_as` is "x", which is not among its outputs: nothing is sent (add'
        " it: `outputs: [a, x]`)",
    ),
    ("operator: {python: a.py, xyzzy: 1}", "unknown field `xyzzy`"),
    ("operators: [{id: a, python: a.py, input: {}}]", "did you mean `inputs`?"),
]


@pytest.mark.parametrize(("fields", "expected"), WARNINGS)
def test_warnings(fields: str, expected: str) -> None:
    found = warnings(with_node(fields))
    assert any(expected in warning for warning in found), found


def test_quoted_shell_syntax_causes_no_warning() -> None:
    lines = ("sh -c 'make && make install'", "find . -name x -exec rm {} \\;", "pip install x")
    fields = "path: p\nbuild: |\n" + "\n".join(f"  {line}" for line in lines)
    assert warnings(with_node(fields)) == []


def test_empty_fields_equal_missing_fields() -> None:
    plain = node("path: p")
    assert node("path: p\nname:\nenv:\ninputs: null\noutputs: ~\ndeploy:") == plain


@pytest.mark.parametrize(
    ("reference", "build"),
    [
        ("dora-echo@^0.5", "dora-echo~=0.5.0"),
        ("dora-rs/dora-echo@0.5.2", "dora-echo~=0.5.2"),
        ("dora-echo@^0", "dora-echo~=0.0"),
        ("dora-echo@~0", "dora-echo~=0.0"),
        ("dora-echo@^0.0", "dora-echo~=0.0.0"),
        ("dora-echo@^1.2", "dora-echo~=1.2"),
        ("dora-echo@1.2.3", "dora-echo~=1.2,>=1.2.3"),
        ("dora-echo@2", "dora-echo~=2.0"),
        ("dora-echo@~1", "dora-echo~=1.0"),
        ("dora-echo@~1.2", "dora-echo~=1.2.0"),
        ("dora-echo@=1.2.3", "dora-echo==1.2.3"),
        ("dora-echo", "dora-echo"),
        ("a b", "NAME"),
    ],
)
def test_a_reference_to_the_hub_is_answered_with_the_lines_that_work(
    reference: str, build: str
) -> None:
    (found,) = errors(f"nodes:\n  - id: a\n    hub: {reference}\n")
    name = build.partition("~")[0].partition("=")[0]
    assert f"`build: pip install {build}` and `path: {name}`" in found
