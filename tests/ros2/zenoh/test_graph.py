"""The graph that tokens describe."""

from __future__ import annotations

from hypothesis import given, strategies as st
from ros2.zenoh.test_tokens import CAPTURED, ENDPOINTS, NODES

from dora_ros2.zenoh.graph import Graph, Profile
from dora_ros2.zenoh.tokens import EndpointToken, NodeToken, gid

NODE = "@ros2_lv/0/aa/0/0/NN/%/%robot1/camera"
QOS = "::,10:,:,:,,"


def endpoint(kind: str, name: str, type_name: str, *, zid: str = "aa", eid: int = 1) -> str:
    return (
        f"@ros2_lv/0/{zid}/0/{eid}/{kind}/%/%robot1/camera/{name.replace('/', '%')}"
        f"/{type_name}/RIHS01_00/{QOS}"
    )


def test_topics_services_and_actions() -> None:
    graph = Graph()
    string = "std_msgs::msg::dds_::String_"
    tokens = [
        NODE,
        endpoint("MP", "/chatter", string),
        endpoint("MS", "/chatter", string, zid="bb"),
        endpoint("SS", "/add", "example_interfaces::srv::dds_::AddTwoInts_"),
    ]
    for name, kind, suffix in [
        ("send_goal", "SS", "_SendGoal"),
        ("get_result", "SS", "_GetResult"),
        ("feedback", "MP", "_FeedbackMessage"),
    ]:
        fibonacci = f"test_msgs::action::dds_::Fibonacci{suffix}_"
        tokens.append(endpoint(kind, f"/fib/_action/{name}", fibonacci))
    for token in tokens:
        assert graph.add(token) is None
    assert [node.full_name for node in graph.nodes()] == ["/robot1/camera", "/robot1/camera"]
    assert list(graph.topics()) == ["/chatter"]
    chatter = graph.topics()["/chatter"]
    assert (chatter.types, len(chatter.offers), len(chatter.uses)) == (
        ["std_msgs/msg/String"],
        1,
        1,
    )
    assert graph.services()["/add"].types == ["example_interfaces/srv/AddTwoInts"]
    assert graph.actions()["/fib"].types == ["test_msgs/action/Fibonacci"]
    assert graph.sender(gid(tokens[1])) == chatter.offers[0]
    for token in tokens:
        graph.remove(token)
    assert (graph.nodes(), graph.topics(), graph.services(), graph.actions()) == ([], {}, {}, {})


def test_the_profile_is_that_of_nodes_that_do_not_follow() -> None:
    graph = Graph()
    assert graph.profiles() == set()
    graph.add(CAPTURED)
    token = endpoint("MP", "/chatter", "std_msgs::msg::dds_::String_")
    graph.add(token.replace("/%/%robot1/", "/%dora/%robot1/"))
    assert graph.profiles() == {Profile.HUMBLE}
    graph.add(token)
    assert graph.profiles() == {Profile.HUMBLE, Profile.REP2016}
    graph.remove(CAPTURED)
    assert graph.profiles() == {Profile.REP2016}


def test_one_warning_for_tokens_that_cannot_be_read() -> None:
    graph = Graph()
    warning = graph.add("@ros2_lv/0/aa/0/0/XX/%/%/a")
    assert warning
    assert "'XX' is not a valid Kind" in warning
    assert graph.add("@ros2_lv/0/aa") is None
    assert len(graph.skipped) == 2
    assert graph.nodes() == []


@given(st.lists(st.tuples(st.booleans(), NODES | ENDPOINTS), max_size=30))
def test_any_order_of_events(events: list[tuple[bool, NodeToken | EndpointToken]]) -> None:
    graph = Graph()
    present: set[str] = set()
    for appears, token in events:
        text = str(token)
        (graph.add if appears else graph.remove)(text)
        (present.add if appears else present.discard)(text)
    endpoints = {text for text in present if text.split("/")[5] != "NN"}
    assert {str(found) for found in graph.endpoints()} == endpoints
    named = {
        str(found)
        for channels in (graph.topics(), graph.services())
        for channel in channels.values()
        for found in (*channel.offers, *channel.uses)
    }
    assert named == endpoints


def test_a_summary_shows_the_own_rows_first_and_their_problems() -> None:
    graph = Graph()
    string, pose = "std_msgs::msg::dds_::String_", "turtlesim::msg::dds_::Pose_"
    own = endpoint("MS", "/z", string, eid=1).replace("camera", "bridge")
    for token in [
        endpoint("MP", "/a", string),
        endpoint("MP", "/z", pose),
        endpoint("MP", "/rosout", "rcl_interfaces::msg::dds_::Log_"),
        endpoint(
            "SS", "/robot1/camera/get_parameters", "rcl_interfaces::srv::dds_::GetParameters_"
        ),
        own.replace(QOS, ":1:,1:,:,:,,"),
    ]:
        graph.add(token)
    summary = graph.summary("/robot1/bridge", dds=False)
    assert summary["nodes"] == ["/robot1/bridge", "/robot1/camera"]
    assert [(row["name"], row["own"]) for row in summary["rows"]] == [("/z", "uses"), ("/a", None)]
    first = summary["rows"][0]
    problem = "/robot1/camera: the types differ: turtlesim/msg/Pose and std_msgs/msg/String"
    assert (first["problem"], first["counts"]) == (problem, [1, 1])
    graph.add(endpoint("MP", "/z", string, eid=7))
    graph.remove(endpoint("MP", "/z", pose))
    assert graph.summary("/robot1/bridge", dds=False)["rows"][0]["problem"] is None
    over_dds = graph.summary("/robot1/bridge", dds=True)["rows"][0]["problem"]
    assert over_dds.endswith("the publisher is volatile, the subscription transient local")
