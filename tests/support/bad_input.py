"""Invalid input with its expected errors, for the tests and for the generated page of errors."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from support.dora import Completed, run_dora
from support.workspace import Workspace

NODE = "from dora import Node\nfor event in Node():\n    pass\n"


@dataclass(frozen=True)
class Mistake:
    """One mistake: a file or a command line, and parts of the error."""

    about: str
    what: str
    fragments: tuple[str, ...]
    """Parts of the output, in this order."""
    yaml: str = ""
    words: tuple[str, ...] = ("validate", "dataflow.yml")
    code: int = 1
    files: dict[str, str] = field(default_factory=dict)

    def make(self, folder: Path) -> Completed:
        """Write the files into ``folder`` and run the command there."""
        workspace = Workspace(folder)
        for name in ("a.py", "b.py"):
            workspace.file(name, NODE)
        for name, text in self.files.items():
            workspace.file(name, text)
        if self.yaml:
            workspace.dataflow(self.yaml)
        environment = {"PATH": os.environ["PATH"]}
        return run_dora(*self.words, cwd=folder, env=environment, timeout=60)

    def entry(self, done: Completed, folder: Path) -> str:
        """Return the section of the page of errors, for a command that ran in ``folder``."""
        # without what differs from run to run, and the usage, which is on the page of commands
        answer = (done.stderr.strip() or done.stdout.strip()).replace(str(folder) + "/", "")
        answer = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<dataflow id>", answer)
        answer = re.sub(r"^Usage: .*\nTry .*\n\n", "", answer.replace(str(folder), "."))
        lines = [f"### {self.what}\n"]
        if self.yaml:
            lines.append(f"```yaml\n{self.yaml.rstrip()}\n```\n")
        lines.append(f"```text\n$ dora {' '.join(self.words)}\n{answer}\n```\n")
        return "\n".join(lines)


def _nodes(*lines: str) -> str:
    return "nodes:\n" + "\n".join(lines) + "\n"


def _a(*more: str) -> str:
    """Return node ``a`` with one output, and further keys."""
    return "\n".join(["  - id: a", "    path: a.py", "    outputs: [out]", *more])


def _b(*inputs: str, more: tuple[str, ...] = ()) -> str:
    """Return node ``b`` with the given inputs."""
    return "\n".join(["  - id: b", "    path: b.py", "    inputs:", *inputs, *more])


THE_FILE = (
    Mistake("The file", "it does not exist", ("nowhere.yml",), words=("validate", "nowhere.yml")),
    Mistake("The file", "it is a folder", ("folder",), words=("validate", "folder"),
            files={"folder/x": ""}),
    Mistake("The file", "it is not YAML", ("dataflow.yml:3:",), "nodes:\n  - {id: a, path: [\n"),
    Mistake("The file", "a tab indents", ("dataflow.yml:2:",), "nodes:\n\t- id: a\n"),
    Mistake("The file", "it is empty", ("dataflow.yml", "nodes"), "# nothing yet\n"),
    Mistake("The file", "it is a list", ("dataflow.yml:1:",), "- id: a\n  path: a.py\n"),
    Mistake("The file", "it has no nodes", ("dataflow.yml", "nodes"), "env: {A: 1}\n"),
    Mistake("The file", "a key is given twice", ("dataflow.yml:4:", "path"),
            _nodes("  - id: a", "    path: a.py", "    path: b.py")),
    Mistake("The file", "a key is misspelt", ("dataflow.yml:4:", "ouputs", "outputs"),
            _nodes("  - id: a", "    path: a.py", "    ouputs: [out]")),
    Mistake("The file", "a root key is unknown", ("dataflow.yml:1:", "nodez", "nodes"),
            "nodez: []\n"),
    Mistake("The file", "a key of dora 0.x", ("dataflow.yml:1:", "communication"),
            "communication: {}\n" + _nodes(_a())),
    Mistake("The file", "`custom:` of dora 0.x", ("dataflow.yml:3:", "custom", "path"),
            _nodes("  - id: a", "    custom: {source: a.py}")),
)  # fmt: skip

NODES = (
    Mistake("Nodes", "two have the same id", ("dataflow.yml:5:", "duplicate node ID", "a"),
            _nodes(_a(), _a())),
    Mistake("Nodes", "the id is empty", ("dataflow.yml:2:", "must not be empty"),
            _nodes('  - id: ""', "    path: a.py")),
    Mistake("Nodes", "the id is reserved", ("dataflow.yml:2:", "reserved"),
            _nodes("  - id: dora", "    path: a.py")),
    Mistake("Nodes", "the id begins with a dot", ("dataflow.yml:2:", "must not start with '.'"),
            _nodes("  - id: .a", "    path: a.py")),
    Mistake("Nodes", "the id holds a blank", ("dataflow.yml:2:", "invalid character"),
            _nodes("  - id: my node", "    path: a.py")),
    Mistake("Nodes", "the id is missing", ("dataflow.yml:2:", "id"), _nodes("  - path: a.py")),
    Mistake("Nodes", "neither a path nor an operator", ("dataflow.yml:2:", "path"),
            _nodes("  - id: a", "    outputs: [out]")),
    Mistake("Nodes", "both a path and an operator", ("dataflow.yml:", "path", "operator"),
            _nodes("  - id: a", "    path: a.py", "    operator: {python: a.py}")),
    Mistake("Nodes", "a field that operators do not have", ("dataflow.yml:", "restart_policy"),
            _nodes("  - id: a", "    restart_policy: always", "    operator: {python: a.py}")),
    Mistake("Nodes", "arguments with an open quote", ("dataflow.yml:", "invalid quoting in node args"),
            _nodes(_a("    args: --name 'x"))),
    Mistake("Nodes", "an unknown restart policy", ("dataflow.yml:", "on-failure", "sometimes"),
            _nodes(_a("    restart_policy: sometimes"))),
    Mistake("Nodes", "a delay below zero", ("dataflow.yml:", "restart_delay"),
            _nodes(_a("    restart_delay: -1"))),
    Mistake("Nodes", "a size with an unknown unit", ("dataflow.yml:", "unknown byte size unit"),
            _nodes(_a("    max_log_size: 5 parsecs"))),
    Mistake("Nodes", "too many rotated files", ("dataflow.yml:", "100"),
            _nodes(_a("    max_rotated_files: 101"))),
    Mistake("Nodes", "an unknown log level", ("dataflow.yml:", "loud", "warn"),
            _nodes(_a("    min_log_level: loud"))),
    Mistake("Nodes", "a branch and a tag at once", ("dataflow.yml:", "branch", "tag"),
            _nodes(_a("    git: https://example.invalid/x", "    branch: main", "    tag: v1"))),
    Mistake("Nodes", "a branch without a repository", ("dataflow.yml:", "git"),
            _nodes(_a("    branch: main"))),
    Mistake("Nodes", "a ROS 2 topic without an output", ("dataflow.yml:", "ros2"),
            _nodes("  - id: a", "    ros2: {topic: /x}")),
    Mistake("Nodes", "an operator in a shared library", ("dataflow.yml:", "shared-library"),
            _nodes("  - id: a", "    operator: {shared-library: x}")),
    Mistake("Nodes", "the module file does not exist", ("dataflow.yml:", "nowhere.yml"),
            _nodes("  - id: a", "    module: nowhere.yml")),
)  # fmt: skip

EDGES = (
    Mistake("Inputs", "the source has no slash", ("dataflow.yml:8:", "a"), _nodes(_a(), _b("      x: a"))),
    Mistake("Inputs", "the node does not exist", ("dataflow.yml:8:", "c/out", "does not exist"),
            _nodes(_a(), _b("      x: c/out"))),
    Mistake("Inputs", "the output is misspelt", ("dataflow.yml:8:", "a/uot", "does not exist", "out"),
            _nodes(_a(), _b("      x: a/uot"))),
    Mistake("Inputs", "an unknown dora source", ("dataflow.yml:8:", "unknown dora input"),
            _nodes(_a(), _b("      x: dora/timers/secs/1"))),
    Mistake("Inputs", "a timer without a period", ("dataflow.yml:8:", "must specify unit and value"),
            _nodes(_a(), _b("      x: dora/timer"))),
    Mistake("Inputs", "a timer with an unknown unit", ("dataflow.yml:8:", "minutes", "millis"),
            _nodes(_a(), _b("      x: dora/timer/minutes/1"))),
    Mistake("Inputs", "a timer of half a second", ("dataflow.yml:8:", "must be an integer"),
            _nodes(_a(), _b("      x: dora/timer/secs/0.5"))),
    Mistake("Inputs", "a timer without pause", ("dataflow.yml:8:", "must be non-zero"),
            _nodes(_a(), _b("      x: dora/timer/millis/0"))),
    Mistake("Inputs", "a negative frequency", ("dataflow.yml:8:", "hz must be a positive"),
            _nodes(_a(), _b("      x: dora/timer/hz/-3"))),
    Mistake("Inputs", "an unknown log level", ("dataflow.yml:8:", "loud"),
            _nodes(_a(), _b("      x: dora/logs/loud"))),
    Mistake("Inputs", "an unknown key", ("dataflow.yml:8:", "queue_length", "queue_size"),
            _nodes(_a(), _b("      x: {source: a/out, queue_length: 3}"))),
    Mistake("Inputs", "the source is missing", ("dataflow.yml:8:", "source"),
            _nodes(_a(), _b("      x: {queue_size: 3}"))),
    Mistake("Inputs", "a queue that no pipe can hold", ("dataflow.yml:8:", "16000"),
            _nodes(_a(), _b("      x: {source: a/out, queue_size: 100000}"))),
    Mistake("Inputs", "an unknown queue policy", ("dataflow.yml:8:", "drop_newest", "drop_oldest"),
            _nodes(_a(), _b("      x: {source: a/out, queue_policy: drop_newest}"))),
    Mistake("Inputs", "several mistakes at once", ("dataflow.yml:8:", "dataflow.yml:9:"),
            _nodes(_a(), _b("      x: a/uot", "      y: c/out"))),
    Mistake("Types", "an output of an unknown type", ("std/media/v1/Imag", "std/media/v1/Image"),
            _nodes(_a("    output_types: {out: std/media/v1/Imag}")),
            words=("validate", "--strict-types", "dataflow.yml")),
    Mistake("Types", "the types of two ends differ", ("std/core/v1/String", "std/core/v1/Float32"),
            _nodes(_a("    output_types: {out: std/core/v1/String}"),
                   _b("      x: a/out", more=("    input_types: {x: std/core/v1/Float32}",))),
            words=("validate", "--strict-types", "dataflow.yml")),
)  # fmt: skip

ENVIRONMENT = (
    Mistake("Environment", "a variable that is not defined", ("dataflow.yml:", "NOT_DEFINED_ANYWHERE"),
            _nodes(_a("    env: {X: $NOT_DEFINED_ANYWHERE}"))),
    Mistake("Environment", "a list as a value", ("dataflow.yml:",), _nodes(_a("    env: {X: [1]}"))),
    Mistake("Environment", "`--env` without a value", ("KEY=VALUE",), _nodes(_a()),
            words=("run", "dataflow.yml", "--env", "X"), code=2),
)  # fmt: skip

COMMANDS = (
    Mistake("Commands", "a command that does not exist", ("validat", "validate"),
            words=("validat", "x.yml"), code=2),
    Mistake("Commands", "an option that does not exist", ("--formt",),
            words=("validate", "--formt", "json", "x.yml"), code=2),
    Mistake("Commands", "the file argument is missing", ("PATH",), words=("run",), code=2),
    Mistake("Commands", "an invalid duration", ("soon",), _nodes(_a()),
            words=("run", "dataflow.yml", "--stop-after", "soon"), code=2),
    Mistake("Commands", "two options that exclude each other", ("--locked", "--write-lockfile"), _nodes(_a()),
            words=("build", "dataflow.yml", "--locked", "--write-lockfile"), code=2),
)  # fmt: skip

RUNS = (
    Mistake("Running", "the script does not exist", ("gone.py",),
            _nodes("  - id: a", "    path: gone.py"), words=("run", "dataflow.yml")),
    Mistake("Running", "a shell node without permission", ("shell", "--allow-shell-nodes"),
            _nodes("  - id: a", "    path: shell", "    args: echo hello"), words=("run", "dataflow.yml")),
    Mistake("Running", "the program is not executable", ("data.bin",),
            _nodes("  - id: a", "    path: ./data.bin"), words=("run", "dataflow.yml"),
            files={"data.bin": "not a program"}),
    Mistake("Running", "a script with a syntax error", ("a", "SyntaxError"),
            _nodes(_a()), words=("run", "dataflow.yml"), files={"a.py": "def\n"}),
    Mistake("Running", "a node that never makes a `Node`", ("a",),
            _nodes(_a()), words=("run", "dataflow.yml"), files={"a.py": "raise SystemExit(4)\n"}),
    Mistake("Running", "a build command fails", ("a", "false"),
            _nodes(_a("    build: 'false'")), words=("run", "dataflow.yml")),
    Mistake("Running", "a build command does not exist", ("a", "no-such-program"),
            _nodes(_a("    build: no-such-program --x")), words=("build", "dataflow.yml")),
)  # fmt: skip

MISTAKES = (*THE_FILE, *NODES, *EDGES, *ENVIRONMENT, *COMMANDS, *RUNS)
