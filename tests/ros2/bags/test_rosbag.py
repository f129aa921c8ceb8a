"""Import and export of ROS 2 bags, beside the library rosbags."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer
from recordings.export.recorded_messages import message
from rosbags import rosbag2, typesys

from dora_config.errors import DoraError
from dora_node_api.data.visual_values import EncodedImage, Image, Joints, Pose, read_visual
from dora_recordings.arrow_messages import RecordedMessage, decode
from dora_recordings.conversion import CannotConvert
from dora_recordings.export.visuals import VisualDecoder
from dora_recordings.reading import Recording
from dora_ros2.bags.exporting import RosbagExport
from dora_ros2.bags.importing import BagImport
from dora_ros2.topics import ros_topics
from dora_ros2.types import Types

MCAP, SQLITE = rosbag2.StoragePlugin.MCAP, rosbag2.StoragePlugin.SQLITE3
CUSTOM = "arm_msgs/msg/Grip"
START = 1_700_000_000_000_000_000
NAMES = ["a", "b"]
PIXELS = np.arange(24, dtype=np.uint8)


def typestore() -> Any:
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    text = "# closed: 1\nfloat64 width 0.5\ngeometry_msgs/Point[<=3] tips\nbool closed\n"
    store.register(typesys.get_types_from_msg(text, CUSTOM))
    return store


def samples(store: Any, number: int) -> Iterator[tuple[str, Any]]:
    t = store.types
    stamp = t["builtin_interfaces/msg/Time"](sec=number, nanosec=5)
    header = t["std_msgs/msg/Header"](stamp=stamp, frame_id="base")
    joints = np.array([number, -1.5])
    none = np.array([])
    yield "/joint_states", t["sensor_msgs/msg/JointState"](header, NAMES, joints, none, none)
    yield "/camera/image", t["sensor_msgs/msg/Image"](header, 2, 4, "rgb8", 0, 12, PIXELS)
    point = t["geometry_msgs/msg/Point"]
    yield "/arm/grip", t[CUSTOM](width=0.25 * number, tips=[point(1.0, 2.0, 3.0)], closed=True)


def write_bag(
    path: Path,
    storage: Any = MCAP,
    compression: Any = rosbag2.CompressionMode.NONE,
    rounds: int = 10,
) -> Path:
    store = typestore()
    writer = rosbag2.Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for number in range(1, rounds + 1):
            for topic, sent in samples(store, number):
                kind = sent.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=store)
                data = store.serialize_cdr(sent, kind)
                writer.write(connections[topic], START + number * 1_000_000, data)
    return path


def imported(bag: Path, target: Path) -> BagImport:
    done = BagImport(bag, target, bag.stem, lambda _: None)
    done.run()
    return done


def values(recording: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in Recording(recording).messages():
        array, _ = decode(one.schema, one.data)
        found.setdefault(one.topic, []).append(array.to_pylist()[0])
    return found


def read_bag(path: Path) -> list[tuple[str, str, int, Any]]:
    """Return the messages as rosbags reads them, with the definitions of the bag."""
    store = typesys.get_typestore(typesys.Stores.EMPTY)
    with rosbag2.Reader(path) as reader:
        for one in reader.connections:
            store.register(typesys.get_types_from_msg(one.msgdef.data, one.msgtype))
        return [
            (one.topic, one.msgtype, time, store.deserialize_cdr(data, one.msgtype))
            for one, time, data in reader.messages()
        ]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        (storage, compression)
        for storage in (MCAP, SQLITE)
        for compression in rosbag2.CompressionMode
        if (storage, compression) != (SQLITE, rosbag2.CompressionMode.STORAGE)
    ],
)
def test_import(tmp_path: Path, storage: Any, compression: Any) -> None:
    bag = write_bag(tmp_path / "bag", storage, compression)
    done = imported(bag, tmp_path / "r.mcap")
    assert not done.bag.problems
    assert {one.output: (one.messages, one.refused) for one in done.topics.values()} == {
        "joint_states": (10, 0),
        "camera_image": (10, 0),
        "arm_grip": (10, 0),
    }
    found = values(tmp_path / "r.mcap")
    assert found["ros2/joint_states"][2]["position"] == [3.0, -1.5]
    assert found["ros2/joint_states"][2]["header"]["stamp"] == {"sec": 3, "nanosec": 5}
    assert found["ros2/camera_image"][0]["data"] == PIXELS.tolist()
    assert found["ros2/arm_grip"][3] == {
        "width": 1.0,
        "tips": [{"x": 1.0, "y": 2.0, "z": 3.0}],
        "closed": True,
    }
    first = next(iter(Recording(tmp_path / "r.mcap").messages()))
    assert (first.log_time, first.type_name) == (START + 1_000_000, "sensor_msgs/msg/JointState")
    assert {one.name for one in tmp_path.iterdir()} == {"bag", "r.mcap"}


@pytest.mark.parametrize("storage", [MCAP, SQLITE])
def test_one_file_of_a_bag(tmp_path: Path, storage: Any) -> None:
    bag = write_bag(tmp_path / "bag", storage)
    (file,) = (one for one in bag.iterdir() if one.suffix in (".mcap", ".db3"))
    imported(file, tmp_path / "r.mcap")
    assert len(values(tmp_path / "r.mcap")["ros2/arm_grip"]) == 10


def test_file_without_chunks_and_summary(tmp_path: Path) -> None:
    types = Types()
    kind = types.message("turtlesim/msg/Pose")
    path = tmp_path / "fast.mcap"
    with path.open("wb") as file:
        plain = Writer(file, use_chunking=False, use_summary_offsets=False, enable_crcs=False)
        plain.start("ros2")
        schema = plain.register_schema(kind.name, "ros2msg", kind.ros2msg_text.encode())
        channel = plain.register_channel("/turtle1/pose", "cdr", schema)
        other = plain.register_channel("/debug", "json", schema)
        for number in range(5):
            plain.add_message(channel, number, bytes(kind.encode({"x": 1.0 * number})), number)
        plain.add_message(other, 9, b"{}", 9)
        plain.finish()
    done = imported(path, tmp_path / "r.mcap")
    found = values(tmp_path / "r.mcap")["ros2/turtle1_pose"]
    assert [one["x"] for one in found] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert not done.bag.problems
    assert done.topics["/debug", ""].refused == 1
    assert done.topics["/debug", ""].reason == "its encoding is json, not cdr"


def test_own_messages_without_fields(tmp_path: Path) -> None:
    """The definition in a bag may be empty; one that is missing is not."""
    path = tmp_path / "own.mcap"
    with path.open("wb") as file:
        plain = Writer(file)
        plain.start("ros2")
        for topic, encoding in (("/known", "ros2msg"), ("/unknown", "")):
            schema = plain.register_schema(f"own_msgs/msg{topic.title()}", encoding, b"")
            channel = plain.register_channel(topic, "cdr", schema)
            plain.add_message(channel, 1, b"\0\1\0\0\0", 1)
        plain.finish()
    known, unknown = imported(path, tmp_path / "a.mcap").topics.values()
    assert (known.messages, known.refused) == (1, 0)
    assert unknown.reason.startswith('found no definition of "own_msgs/msg/Unknown"')

    bag = write_bag(tmp_path / "bag", SQLITE, rounds=1)
    (file_of_bag,) = bag.glob("*.db3")
    db = sqlite3.connect(file_of_bag)
    with db:
        db.execute("UPDATE message_definitions SET encoded_message_definition = ''")
        db.execute("UPDATE topics SET type = 'own_msgs/msg/Nothing' WHERE type = ?", [CUSTOM])
        changed = "UPDATE message_definitions SET topic_type = 'own_msgs/msg/Nothing'"
        db.execute(f"{changed} WHERE topic_type = ?", [CUSTOM])
        db.execute("UPDATE messages SET data = x'0001000000' WHERE id = 3")
    db.close()
    *_, nothing = imported(file_of_bag, tmp_path / "b.mcap").topics.values()
    assert (nothing.messages, nothing.refused) == (1, 0), nothing.reason


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", SQLITE)
    (file,) = bag.glob("*.db3")
    db = sqlite3.connect(file)
    with db:
        db.execute("UPDATE messages SET data = substr(data, 1, 20) WHERE id % 3 = 1 AND id < 9")
        db.execute("DELETE FROM message_definitions")
    db.close()
    (bag / "metadata.yaml").write_text(
        (bag / "metadata.yaml").read_text().replace(file.name, "bag_7.db3")
    )
    (bag / "bag_8.mcap").write_text("something else")
    done = imported(bag, tmp_path / "r.mcap")
    joints, _, grip = done.topics.values()
    assert (joints.messages, joints.refused) == (7, 3)
    assert joints.reason.startswith("sensor_msgs/msg/JointState: the payload ends within")
    assert (grip.messages, grip.refused) == (0, 10)
    assert grip.reason.startswith(f'found no definition of "{CUSTOM}"')
    assert done.bag.problems == [
        f"{bag}/bag_7.db3 is missing",
        f"{bag}/bag_8.mcap is neither an MCAP nor a SQLite file",
    ]
    assert set(values(tmp_path / "r.mcap")) == {"ros2/joint_states", "ros2/camera_image"}


def test_damaged_sqlite(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", SQLITE, rounds=100)
    (file,) = bag.glob("*.db3")
    data = bytearray(file.read_bytes())
    begin = data.rfind(PIXELS.tobytes()) // 4096 * 4096  # the page of the last image
    data[begin : begin + 4096] = b"\xa5" * 4096
    file.write_bytes(data)
    done = imported(bag, tmp_path / "r.mcap")
    read = sum(one.messages + one.refused for one in done.topics.values())
    assert 100 < read < 300
    assert done.bag.problems == [
        f"{file} is damaged: database disk image is malformed;"
        f" the first {read} messages could be read"
    ]


def test_cut_mcap(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", MCAP)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-200])  # without its index
    done = imported(bag, tmp_path / "r.mcap")
    assert sum(one.messages for one in done.topics.values()) == 30
    file.write_bytes(file.read_bytes()[:1500])  # within its only chunk
    with pytest.raises(CannotConvert, match="no message could be read"):
        imported(bag, tmp_path / "second.mcap")
    assert {one.name for one in tmp_path.iterdir()} == {"bag", "r.mcap"}


def not_a_bag(folder: Path) -> None:
    (folder / "bag").write_bytes(b"something else" * 9)


def empty_folder(folder: Path) -> None:
    (folder / "bag").mkdir()


def occupied(folder: Path) -> None:
    write_bag(folder / "bag")
    (folder / "r.mcap").write_text("mine")


def empty_bag(folder: Path) -> None:
    with rosbag2.Writer(folder / "bag", version=9, storage_plugin=MCAP):
        pass


@pytest.mark.parametrize("prepare", [not_a_bag, empty_folder, occupied, empty_bag])
def test_failed_import_leaves_nothing(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        Exception, match=r"is neither an MCAP nor|no files of a bag|exists|there is no"
    ):
        imported(tmp_path / "bag", tmp_path / "r.mcap")
    assert sorted(tmp_path.iterdir()) == before


def test_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 7:
            raise KeyboardInterrupt

    write_bag(tmp_path / "bag")
    with pytest.raises(KeyboardInterrupt):
        BagImport(tmp_path / "bag", tmp_path / "r.mcap", "bag", interrupt).run()
    assert {one.name for one in tmp_path.iterdir()} == {"bag"}


def test_import_creates_the_folder_of_the_recording(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag")
    imported(tmp_path / "bag", tmp_path / "new" / "r.mcap")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["r.mcap"]


def test_topics_with_the_same_output(tmp_path: Path) -> None:
    store = typestore()
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=MCAP) as writer:
        for number, topic in enumerate(("/a/b", "/a_b", "/a/b_2")):
            kind = "std_msgs/msg/Int32"
            connection = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_cdr(store.types[kind](data=number), kind)
            writer.write(connection, START, data)
    done = imported(tmp_path / "bag", tmp_path / "r.mcap")
    outputs = {one.topic: one.output for one in done.topics.values()}
    assert outputs == {"/a/b": "a_b", "/a_b": "a_b_2", "/a/b_2": "a_b_2_2"}
    topics = ros_topics(Recording(tmp_path / "r.mcap").facts.dataflow)
    assert {name: one.name for name, one in topics.items()} == {
        f"ros2/{output}": topic for topic, output in outputs.items()
    }


def test_export_of_an_imported_bag(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    imported(bag, tmp_path / "r.mcap")
    recording = Recording(tmp_path / "r.mcap")
    export = RosbagExport(tmp_path / "out", recording.facts.dataflow, "")
    export.write(recording.messages())
    assert [one.messages for one in export.topics.values()] == [10, 10, 10]
    before, after = read_bag(bag), read_bag(tmp_path / "out")
    assert len(before) == len(after) == 30
    for sent, got in zip(before, after, strict=True):
        assert repr(sent) == repr(got)
    with rosbag2.Reader(tmp_path / "out") as reader:
        assert (reader.message_count, reader.start_time) == (30, START + 1_000_000)
    store = typestore()
    with (tmp_path / "out" / "out_0.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    for channel in summary.channels.values():
        kind = summary.schemas[channel.schema_id].name
        assert channel.metadata["topic_type_hash"] == store.hash_rihs01(kind)
    # and once more, from the bag that we have written
    imported(tmp_path / "out", tmp_path / "again.mcap")
    assert values(tmp_path / "again.mcap") == values(tmp_path / "r.mcap")


DATAFLOW: dict[str, Any] = {
    "nodes": [
        {
            "id": "turtle",
            "ros2": {
                "namespace": "/sim",
                "topics": [
                    {"topic": "turtle1/pose", "message_type": "turtlesim/Pose"},
                    {
                        "topic": "/cmd_vel",
                        "message_type": "geometry_msgs/msg/Twist",
                        "direction": "publish",
                        "input": "steer",
                    },
                    {"topic": "~/typed", "output": "typed"},
                    {"topic": "/cmd_vel", "message_type": "geometry_msgs/Twist", "output": "heard"},
                ],
            },
            "inputs": {"steer": {"source": "driver/twist"}},
            "outputs": ["turtle1_pose", "typed", "heard"],
        },
        {"id": "driver", "path": "driver.py", "outputs": ["twist", "log"]},
    ]
}


def bridged() -> list[RecordedMessage]:
    types = Types()
    pose = types.message("turtlesim/Pose")
    typed = {"ros2_type": "std_msgs/msg/Int32"}
    return [
        message(
            "turtle/turtle1_pose",
            pose.decode(pose.encode({"x": 1.5, "theta": -1.0})),
            at=10,
        ),
        message("driver/twist", pa.array([{"linear": {"x": 2.0}}]), at=11),
        message("driver/log", ["hello"], at=12),
        message("turtle/typed", pa.array([{"data": 7}]), typed, at=13),
        message("driver/twist", [1, 2], at=14),
        message("turtle/typed", pa.array([{"data": 7}]), at=15),
        message("turtle/heard", pa.array([{"linear": {"x": 3.0}}]), at=16),
    ]


def test_export_of_what_a_bridge_sent_and_received(tmp_path: Path) -> None:
    export = RosbagExport(tmp_path / "out", DATAFLOW, str(tmp_path))
    export.write(bridged())
    read = read_bag(tmp_path / "out")
    assert [(topic, kind, time) for topic, kind, time, _ in read] == [
        ("/sim/turtle1/pose", "turtlesim/msg/Pose", 10),
        ("/cmd_vel", "geometry_msgs/msg/Twist", 11),
        ("/sim/turtle/typed", "std_msgs/msg/Int32", 13),
        ("/cmd_vel", "geometry_msgs/msg/Twist", 16),
    ]
    with rosbag2.Reader(tmp_path / "out") as reader:
        assert [(one.topic, one.msgcount) for one in reader.connections] == [
            ("/sim/turtle1/pose", 1),
            ("/cmd_vel", 2),
            ("/sim/turtle/typed", 1),
        ]
    pose, twist, typed, _ = (one[3] for one in read)
    assert (pose.x, pose.theta) == (1.5, -1.0)
    assert (twist.linear.x, twist.angular.z) == (2.0, 0.0)
    assert typed.data == 7
    assert list(export.others) == ["driver/log"]
    refused = {key: (one.refused, one.reason) for key, one in export.topics.items() if one.refused}
    assert refused["driver/twist", "geometry_msgs/msg/Twist"][0] == 1
    assert refused["turtle/typed", ""] == (
        1,
        "its type is unknown; add `message_type` to the `ros2:` node",
    )


def test_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert, match="no outputs of `ros2:` nodes"):
        RosbagExport(tmp_path / "out", {"nodes": []}, "").write(bridged())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "sensor_msgs/msg/JointState",
            {"name": NAMES, "position": [1.0, 2.0]},
            Joints(("a", "b"), (1.0, 2.0)),
        ),
        (
            "sensor_msgs/msg/Image",
            {"width": 4, "height": 2, "encoding": "rgb8", "data": PIXELS.tolist()},
            Image(4, 2, "rgb8", PIXELS.tobytes()),
        ),
        (
            "sensor_msgs/msg/CompressedImage",
            {"format": "rgb8; jpeg compressed bgr8", "data": [1, 2]},
            EncodedImage("jpeg", b"\1\2"),
        ),
        (
            "nav_msgs/msg/Odometry",
            {"header": {"frame_id": "map"}, "pose": {"pose": {"position": {"x": 2.0}}}},
            Pose((2.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), "map"),
        ),
    ],
)
def test_what_ros_messages_show(name: str, value: Any, expected: Any) -> None:
    kind = Types().message(name)
    topic = {"topic": "/x", "message_type": name}
    decoder = VisualDecoder({"nodes": [{"id": "n", "ros2": topic, "outputs": ["x"]}]})
    shown = decoder.decode(message("n/x", kind.decode(kind.encode(value))))
    assert shown.kind is not None
    assert read_visual(shown.kind, shown.array, shown.metadata, shown.declared) == expected


def test_compressed_files_beside_their_originals_are_read_once(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", MCAP, rosbag2.CompressionMode.FILE)
    plain = write_bag(tmp_path / "plain", MCAP)
    (packed,) = bag.glob("*.zstd")
    (file,) = plain.glob("*.mcap")
    shutil.copy(file, packed.with_suffix(""))
    done = imported(bag, tmp_path / "r.mcap")
    assert sum(one.messages for one in done.topics.values()) == 30


@pytest.mark.parametrize("storage", [MCAP, SQLITE])
def test_no_content_of_a_bag_leads_to_another_error(tmp_path: Path, storage: Any) -> None:
    seed = int(os.environ.get("DORA_TESTS_SEED", random.randrange(1 << 32)))
    print(f"DORA_TESTS_SEED={seed}")
    chance = random.Random(seed)
    bag = write_bag(tmp_path / "bag", storage)
    (file,) = (one for one in bag.iterdir() if one.suffix in (".mcap", ".db3"))
    content, target = file.read_bytes(), tmp_path / "r.mcap"
    for _ in range(60):
        changed = bytearray(content)
        for at in chance.sample(range(len(content)), chance.choice((1, 2, 10, 100))):
            changed[at] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            del changed[chance.randrange(len(content)) :]
        file.write_bytes(changed)
        try:
            imported(bag, target)
        except DoraError:
            assert not target.exists()
        else:
            values(target)
        target.unlink(missing_ok=True)
        assert {one.name for one in tmp_path.iterdir()} == {"bag"}
