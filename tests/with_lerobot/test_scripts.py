"""LeRobot's own scripts, unmodified, with a simulated arm that other nodes hold."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.dora import RunningDora, running_dora
from support.waiting import wait_until
from support.workspace import Workspace
from with_lerobot.conftest import PYTHON

HERE = Path(__file__).parent
INTERPRETER = Path(os.environ[PYTHON])
DORA = INTERPRETER.parent / "dora"
ENVIRONMENT = {
    "PATH": f"{INTERPRETER.parent}:/usr/bin:/bin",
    "PYTHONPATH": str(HERE),
    "HF_HUB_OFFLINE": "1",
}
DEVICES = ("--robot.type=dora", "--teleop.type=dora")
NAMES = ["shoulder_pan.pos", "elbow_flex.pos", "gripper.pos"]
CHECK = """
    import time
    from dora import Node

    node = Node()
    print("started", node.dataflow_id(), flush=True)
    times = []
    for event in node:
        if event["type"] == "INPUT":
            times.append(time.monotonic())
            if len(times) > 1 and times[-1] - times[-2] > 3:
                print(f"went on after {times[-1] - times[-2]:.1f} s", flush=True)
            if len(times) == 30:
                print("30 actions", flush=True)
    periods = sorted(1000 * (b - a) for a, b in zip(times, times[1:]))
    middle, late = periods[len(periods) // 2], periods[len(periods) * 99 // 100]
    print(f"{len(times)} actions, median {middle:.1f} ms, p99 {late:.1f} ms", flush=True)
"""

pytestmark = pytest.mark.timeout(240)


def flow(workspace: Workspace, script: str, source: str = "script/action", **more: Any) -> Path:
    """An arm that obeys `source`, a leader, and a script of LeRobot; nodes `more`."""
    newest = {"queue_size": 1}
    tick = "dora/timer/hz/30"
    arm = "--robot.discover_packages_path=sim_arm --robot.type=sim_arm --jpeg=90"
    leader = "--teleop.discover_packages_path=sim_arm --teleop.type=sim_leader"
    state = {"state": {"source": "arm/state", **newest}, "front": {"source": "arm/front", **newest}}
    nodes = {
        "arm": {
            "path": "dora-lerobot-robot",
            "args": arm,
            "inputs": {"tick": tick, "action": {"source": source, **newest}},
            "outputs": ["state", "front", "executed"],
        },
        "leader": {
            "path": "dora-lerobot-teleop",
            "args": leader,
            "inputs": {"tick": tick},
            "outputs": ["action"],
        },
        "check": {"path": "check.py", "inputs": {"action": source}},
        **more,
    }
    if script:
        path, _, args = script.partition(" ")
        leading = {"action": {"source": "leader/action", **newest}}
        has_leader = "--teleop" in args or path == "dynamic"
        nodes["script"] = {
            "path": path,
            "args": args,
            "inputs": {**state, **(leading if has_leader else {})},
            "outputs": ["action"],
        }
    workspace.node("check", CHECK)
    content = {"nodes": [{"id": name, **node} for name, node in nodes.items()]}
    return workspace.dataflow(content)


@contextmanager
def running(workspace: Workspace, *words: str | Path) -> Iterator[RunningDora]:
    with running_dora(*words, cwd=workspace.path, env=ENVIRONMENT, program=(DORA,)) as dora:
        yield dora


def python(workspace: Workspace, file: str, *words: str) -> str:
    done = subprocess.run(
        [INTERPRETER, HERE / file, *words],
        cwd=workspace.path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def datasets(workspace: Workspace, target: str, *folders: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        python(workspace, "read_datasets.py", target, *folders)
    )
    return found


def actions(dora: RunningDora) -> tuple[int, float]:
    """Wait until the script has ended; return the number of its actions, and the usual period."""
    dora.wait_for("actions, median", timeout=120)
    found = re.search(r"(\d+) actions, median (\S+) ms", dora.stdout)
    assert found is not None
    return int(found[1]), float(found[2])


def record(root: str, episodes: int, seconds: int, *more: str) -> str:
    words = (
        *("lerobot-record", *DEVICES, f"--dataset.repo_id=me/{root}", f"--dataset.root={root}"),
        *(f"--dataset.num_episodes={episodes}", f"--dataset.episode_time_s={seconds}"),
        *("--dataset.reset_time_s=0", "--dataset.single_task=wave", "--dataset.fps=30"),
        *("--dataset.push_to_hub=false", "--play_sounds=false", *more),
    )
    return " ".join(words)


def test_record(workspace: Workspace) -> None:
    """What LeRobot records, and what dora records beside it, become one dataset."""
    file = flow(workspace, record("taught", 2, 3))
    with running(workspace, "record", file, "-o", "all.mcap") as dora:
        count, period = actions(dora)
        dora.interrupt()
        dora.wait()
    assert count > 60
    assert 30 < period < 50
    words = ("all.mcap", "--to", "lerobot", "-o", "beside", "--robot", "dora", "--codec", "av1")
    topics = ("--state", "arm/state", "--action", "arm/executed", "--image", "front=arm/front")
    with running(workspace, "recording", "export", *words, *topics, "--task", "wave") as dora:
        assert dora.wait().code == 0
    taught, beside, merged = datasets(workspace, "merged", "taught", "beside")
    same = {"fps": 30, "robot": "dora", "names": NAMES, "picture": [3, 48, 64]}
    assert taught.items() >= {**same, "episodes": 2}.items()
    assert beside.items() >= {**same, "episodes": 1}.items()
    assert taught["frames"] > 60
    frames = taught["frames"] + beside["frames"]
    assert merged.items() >= {**same, "episodes": 3, "frames": frames}.items()
    train(workspace, "merged")
    assert (workspace.path / "trained/checkpoints/last/pretrained_model/config.json").exists()


def train(workspace: Workspace, dataset: str) -> None:
    """Train a tiny policy for two steps."""
    tiny = (
        "type=act device=cpu push_to_hub=false pretrained_backbone_weights=null chunk_size=4"
        " n_action_steps=4 dim_model=16 n_heads=2 dim_feedforward=16 n_encoder_layers=1"
        " n_vae_encoder_layers=1"
    )
    words = (
        *("lerobot-train", f"--dataset.repo_id=me/{dataset}", f"--dataset.root={dataset}"),
        *("--dataset.video_backend=pyav", "--output_dir=trained", "--steps=2", "--batch_size=2"),
        "--num_workers=0",
        *(f"--policy.{option}" for option in tiny.split()),
    )
    python(workspace, str(INTERPRETER.parent / words[0]), *words[1:])


def test_ctrl_c_in_an_episode_leaves_a_readable_dataset(workspace: Workspace) -> None:
    more = ("--robot.robot_type=so101",)
    with running(workspace, "run", flow(workspace, record("cut", 50, 2, *more))) as dora:
        dora.wait_for("Recording episode 2", timeout=120)
        dora.interrupt()
        dora.wait()
    (found,) = datasets(workspace, "", "cut")
    assert found["episodes"] >= 2
    assert found["frames"] >= 20
    assert found["robot"] == "so101"


def by_hand(workspace: Workspace, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=workspace.path,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_teleoperate_by_hand(workspace: Workspace) -> None:
    """The script attaches to one of two dataflows; a second script is refused."""
    file = flow(workspace, "dynamic")
    with running(workspace, "run", file) as theirs, running(workspace, "run", file) as dora:
        for one in (theirs, dora):
            one.wait_for("check: started")
        started = re.search(r"started (\S+)", dora.stdout)
        assert started is not None
        chosen = ("type=dora", "node=script", f"dataflow={started[1]}")
        words = [f"--{one}.{option}" for one in ("robot", "teleop") for option in chosen]
        program = str(INTERPRETER.parent / "lerobot-teleoperate")
        with by_hand(workspace, program, *words, "--fps=30", "--teleop_time_s=6") as script:
            dora.wait_for("30 actions")
            again = "from lerobot_robot_dora.session import acquire; acquire('script', 'UUID')"
            with by_hand(
                workspace, str(INTERPRETER), "-c", again.replace("UUID", started[1])
            ) as second:
                assert 'node "script" is already attached' in second.communicate()[1]
            _, errors = script.communicate()
            assert script.returncode == 0, errors
        assert "30 actions" not in theirs.stdout
        for one in (dora, theirs):
            one.interrupt()
            one.wait()


def test_a_policy_that_is_killed(workspace: Workspace) -> None:
    """The arm gets no action meanwhile, and goes on by itself when the policy is back."""
    python(workspace, "make_policy.py", "policy")
    inputs = {
        "state": {"source": "arm/state", "queue_size": 1},
        "front": {"source": "arm/front", "queue_size": 5},
    }
    policy = {
        "path": "dora-lerobot-policy",
        "args": "--policy policy --fps 5",
        "restart_policy": "always",
        "restart_delay": 6,  # a pause that the check sees, however fast the policy starts
        "inputs": inputs,
        "outputs": ["chunk"],
    }
    steps = {
        "path": "dora-lerobot-steps",
        "args": "--hold-after 2",
        "inputs": {
            "tick": "dora/timer/hz/30",
            "chunk": {"source": "policy/chunk", "queue_size": 1},
        },
        "outputs": ["action"],
    }
    file = flow(workspace, "", "steps/action", policy=policy, steps=steps)
    with running(workspace, "run", file) as dora:
        dora.wait_for("30 actions", timeout=120)
        os.kill(_policy(workspace), signal.SIGKILL)
        dora.wait_for("went on after", timeout=120)
        dora.interrupt()
        dora.wait()


def _policy(workspace: Workspace) -> int:
    """Return the process of the policy in this workspace."""

    def found() -> list[int]:
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _is_policy(path) and (path.parent / "cwd").resolve() == workspace.path.resolve()
        ]

    wait_until(lambda: bool(found()), what="the process of the policy")
    return found()[0]


def _is_policy(command: Path) -> bool:
    try:
        return b"dora-lerobot-policy" in command.read_bytes()
    except OSError:
        return False
