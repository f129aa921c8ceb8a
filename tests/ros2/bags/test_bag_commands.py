"""Bags of ROS 2 become recordings, and recordings bags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from mcap.writer import Writer
from support.command_line import Dora

from dora_ros2.types import Types

START = 1_700_000_000_000_000_000


def write_bag(path: Path, *, broken: int = 0) -> None:
    """Write a bag with two topics; some of the poses end too early."""
    types = Types()
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2")

        def channel(topic: str, name: str) -> int:
            kind = types.message(name)
            schema = writer.register_schema(kind.name, "ros2msg", kind.ros2msg_text.encode())
            return writer.register_channel(topic, "cdr", schema)

        pose = channel("/turtle1/pose", "turtlesim/Pose")
        image = channel("/camera", "sensor_msgs/Image")
        for number in range(20):
            at = START + number * 50_000_000
            sent: dict[str, Any] = {"x": 0.5 * number, "y": 1.0}
            data = bytes(types.message("turtlesim/Pose").encode(sent))
            writer.add_message(pose, at, data[:9] if number < broken else data, at)
            sent = {"width": 16, "height": 16, "encoding": "rgb8", "data": bytes(768)}
            writer.add_message(
                image, at, bytes(types.message("sensor_msgs/Image").encode(sent)), at
            )
        writer.finish()


def test_a_bag_there_and_back(dora: Dora, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive.mcap")
    done = dora("recording", "import", "drive.mcap")
    assert done.code == 0, done.err
    assert "ros2/turtle1_pose" not in done.out
    assert "turtle1_pose" in done.out
    assert done.out.rstrip().endswith("wrote " + str(tmp_path / "drive_dora.mcap"))
    info = dora("recording", "info", "drive_dora.mcap", "--format", "json")
    channels = {one["topic"]: one for one in json.loads(info.out)["channels"]}
    assert channels["ros2/turtle1_pose"]["messages"] == 20
    assert channels["ros2/camera"]["types"] == ["sensor_msgs/msg/Image"]

    assert dora("recording", "export", "drive_dora.mcap").code == 0
    table = pq.read_table(tmp_path / "drive_dora" / "ros2_turtle1_pose.parquet")
    assert table["data"][3].as_py()[0]["x"] == 1.5

    done = dora("recording", "export", "drive_dora.mcap", "--to", "rosbag")
    assert done.code == 0, done.err
    assert "wrote drive_dora_rosbag" in done.out
    assert dora("recording", "import", "drive_dora_rosbag").code == 0

    done = dora("replay", "drive_dora.mcap", "--output-yaml", "replay.yml")
    assert done.code == 0, done.err
    (player,) = yaml.safe_load((tmp_path / "replay.yml").read_text())["nodes"]
    assert (player["id"], player["outputs"]) == ("ros2", ["turtle1_pose", "camera"])


def test_lerobot_dataset_of_a_bag(dora: Dora, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive.mcap")
    assert dora("recording", "import", "drive.mcap", "-o", "r.mcap").code == 0
    options = ("--to", "lerobot", "--state", "ros2/turtle1_pose", "-o", "set")
    done = dora("recording", "export", "r.mcap", *options)
    assert done.code == 0, done.err
    features = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["features"]
    assert features["observation.images.ros2_camera"]["shape"] == [16, 16, 3]
    assert features["observation.state"]["shape"] == [5]


def test_messages_that_are_left_out_are_named(dora: Dora, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive.mcap", broken=2)
    done = dora("recording", "import", "drive.mcap")
    assert done.code == 1
    assert "/turtle1/pose: 2 messages left out: turtlesim/msg/Pose: the payload ends" in done.err
    assert (tmp_path / "drive_dora.mcap").exists()
    done = dora("recording", "import", "drive.mcap")
    assert "drive_dora.mcap exists" in done.err
    done = dora("recording", "import", "drive.mcap", "-o", "drive.mcap/r.mcap")
    assert (done.code, "File exists" in done.err) == (1, True)
    assert "unexpected error" not in done.err
