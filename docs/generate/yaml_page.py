"""The page about the YAML file: every field of the models that read it."""

from __future__ import annotations

from typing import Any

from tables import NOTICE, plain_name, table, type_words

from dora_config.cluster.models import Cluster
from dora_config.dataflow.descriptor import Descriptor, Module
from dora_config.render.schema import add_kinds

PAGE = "reference/yaml.md"

HEADINGS = {
    "Descriptor": "The file",
    "Node": "A node",
    "Input": "An input",
    "Compress": "Compression between machines",
    "Operator": "An operator",
    "PythonSource": "The file of an operator",
    "Ros2": "A bridge to ROS 2",
    "Ros2BridgeTopic": "A topic of a bridge",
    "Ros2Qos": "Quality of service",
    "Ros2BridgeTransport": "Transport of a bridge",
    "Deploy": "Placement",
    "Debug": "Inspection",
    "TypeRule": "A type rule",
    "Module": "A module file",
    "ModuleInterface": "The face of a module",
    "Cluster": "A cluster file",
    "Coordinator": "The coordinator of a cluster",
    "Machine": "A machine of a cluster",
    "FleetDataflow": "A dataflow of a fleet",
    "FleetMachines": "The machines of a dataflow",
    "WrittenRollout": "A roll-out",
}

INTRODUCTION = f"""\
{NOTICE}

# The YAML files

A dataflow file lists nodes; everything else is optional. Unknown keys are refused, with the place and the key that was probably meant.
Where a text is expected, a number is taken exactly as it is written: `tag: 1.10` is `1.10`, `args: 0x10` is `0x10`, `id: 7` is `7`; a boolean is `true` or `false`.
`dora validate FILE` checks a file, `dora schema dataflow` prints the JSON Schema for editors (`module`, `cluster` and `fleet` too).
Cluster files are [below](#cluster), and explained in [Two machines in ten minutes](../howto/cluster.md). `dataflows` and `rollout` may also be
a file of their own; [A fleet is a file](../howto/fleet-file.md) explains them.

```yaml
nodes:
  - id: camera
    path: camera.py
    args: --device 0
    env: {{FPS: 30}}
    inputs:
      tick: dora/timer/hz/30
    outputs: [image]
    restart_policy: on-failure
  - id: plot
    path: plot.py
    inputs:
      image: {{source: camera/image, queue_size: 1}}
```
"""

SOURCES = """\
## Where an input comes from

| source | what comes |
| --- | --- |
| `node/output` | messages of that output; the name of an output may contain slashes |
| `node/operator/output` | messages of an operator of that node |
| `dora/timer/secs/2`, `.../millis/20`, `.../micros/500`, `.../nanos/100` | a tick each such period, an empty array |
| `dora/timer/hz/30` | 30 ticks a second; the number may be a fraction |
| `dora/logs`, `dora/logs/<level>`, `dora/logs/<level>/<node>` | log entries of other nodes, as JSON; levels `error warn info debug trace stdout` |
| `_mod/<port>` | in a module file: what the user of the module connects to that port |

Timers tick at once when all nodes are ready, then at fixed times; what a late reader misses beyond its queue is skipped. They never close, and `input_timeout` has no effect on them.
"""

DETAILS = """\
## What `path` may be

| value | what runs |
| --- | --- |
| `name.py` | that script, relative to the [working directory](../explanation/working-directory.md), by the node's managed environment, else uv (with `--uv`), else the interpreter that runs the runner |
| another file, or a bare name | that program; a bare name is looked for in the working directory, beside the interpreter of the node's `build`, in `PATH`, and beside the interpreter that runs dora |
| `dynamic` | nothing: a process of yours [attaches](../howto/dynamic-nodes.md) |
| `shell` | `args` go to `sh -c`; only with `--allow-shell-nodes` |
| `https://...` | a download, checked against `path_sha256` |

## Environment variables

Numbers and booleans arrive as written, but `True` as `true` and `0x1F` as `31` (in quotes they are not changed); `$NAME` and `${NAME}` in texts are expanded where the file is read, and a variable that is not defined there is an error.
`{__dora_env: NAME}` takes the value from the environment of the machine that the node runs on. What wins: `env` of the node, then `--env NAME=VALUE` of the command, then `env` of
the file, then the environment of the runner. Names that change how programs are loaded or how dora connects are dropped with a warning: `DORA_NODE_CONFIG`,
`DORA_RUNTIME_CONFIG`, `DORA_ZENOH_*`, `ZENOH_CONFIG`, `DORA_RUN_PARENT_PID`, `DORA_AUTH_TOKEN`, `DORA_ALLOW_SHELL_NODES`, `LD_PRELOAD`, `LD_AUDIT`, `DYLD_*`.
`LD_LIBRARY_PATH` is inherited, by nodes and by build lines, and may be set.

## Build commands

Each line of `build` is one command, run in the node's working directory with the node's environment, without a shell: no `&&`, no `|`, no wildcards. The first that fails stops the
build. With `--uv`, `pip` becomes `uv pip`, and the node gets an environment of its own. `git` clones a repository first (`branch` is fetched at each build, `tag` and `rev` once);
`--write-lockfile` records the commits in `<file>.dora-lock.yaml`, and `--locked` requires them.

## Ids

A node id holds letters, digits, `_`, `.` and `-`, does not begin with a dot, and is not `dora`. Ids of inputs and outputs may contain slashes inside.

## Sizes and times

Sizes are bytes, or a number with `B`, `K`, `KB`, `M`, `MB`, `G` or `GB` (powers of 1024). Times are seconds.

## Old keys

`_unstable_deploy` and `_unstable_debug` are accepted as `deploy` and `debug`. `custom`, `communication` and other keys of 0.x files are refused, with a hint what to write instead.
"""


def render() -> str:
    definitions: dict[str, Any] = {}
    for model in (Descriptor, Module, Cluster):
        schema = model.model_json_schema()
        definitions |= schema.pop("$defs", {})
        definitions[model.__name__] = schema
    add_kinds(definitions)
    parts = [INTRODUCTION]
    for name, heading in HEADINGS.items():
        parts.append(_section(name, heading, definitions))
        if name == "Input":
            parts.append(SOURCES)
    parts.append(DETAILS)
    return "\n".join(parts)


def _section(name: str, heading: str, definitions: dict[str, Any]) -> str:
    schema = definitions[name]
    fields = schema["properties"]
    needed = set(schema.get("required", ()))
    rows = []
    refused = []
    for key, field in sorted(fields.items(), key=lambda item: item[0] != "id"):
        if field.get("type") == "null":
            refused.append(f"`{key}`")
            continue
        words = type_words(field, definitions)
        required = " **Required.**" if key in needed else ""
        rows.append((f"`{key}`", words, field.get("description", "") + required))
    text: str = f"## {heading} {{#{plain_name(name).lower()}}}\n\n"
    text += table(("field", "value", "meaning"), rows) + "\n"
    if refused:
        text += f"\nKnown, but not supported, and refused with a sentence: {', '.join(refused)}.\n"
    return text
