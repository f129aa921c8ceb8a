"""Plug-ins: what is found, what is refused, and the sentences about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_config import plugins
from dora_config.installation import uninstall_command, wheel_command
from dora_config.plugins import Addition, Group, PluginError, Plugins

HELLO = Addition("dora.commands", "hello", "dora_hello:hello", "dora-hello", "0.3")
OTHER = Addition("dora.commands", "hello", "dora_other:hello", "dora-other", "2")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    yield from plugin_wheels(tmp_path, monkeypatch)


def test_an_addition_is_found_by_group_and_name() -> None:
    found = Plugins([HELLO], {"dora-hello": ["1"]})
    assert found.find("dora.commands", "hello") == HELLO
    assert found.find("dora.exports", "hello") is None
    assert found.names("dora.commands") == ["hello"]
    assert found.refusals() == []


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        (["2"], "is for version 2 of the interface of plug-ins, and this dora has version 1;"
                " update dora, or use an older version of the plug-in"),
        (["0"], "is for version 0 of the interface of plug-ins, and this dora has version 1;"
                " update the plug-in, or state the version in its entry points `dora.interface`"),
        ([], "states no version of the interface of plug-ins, and this dora has version 1;"
             " update the plug-in, or state the version in its entry points `dora.interface`"),
    ],
)  # fmt: skip
def test_a_plug_in_of_another_version_is_refused(stated: list[str], sentence: str) -> None:
    found = Plugins([HELLO], {"dora-hello": stated})
    with pytest.raises(PluginError) as error:
        found.find("dora.commands", "hello")
    assert str(error.value) == f"the plug-in dora-hello 0.3 {sentence}"
    assert found.names("dora.commands") == []
    assert found.refusals() == [str(error.value)]


def test_a_plug_in_may_state_several_versions() -> None:
    assert Plugins([HELLO], {"dora-hello": ["1", "2"]}).names("dora.commands") == ["hello"]


def test_two_plug_ins_with_the_same_name_are_refused() -> None:
    found = Plugins([OTHER, HELLO], {"dora-hello": ["1"], "dora-other": ["1"]})
    with pytest.raises(PluginError, match="and dora-other 2; remove all but one, for example: "):
        found.find("dora.commands", "hello")
    assert found.names("dora.commands") == []


@pytest.mark.parametrize(
    ("group", "name", "wheel"),
    [
        ("dora.commands", "cluster", "dora-cluster"),
        ("dora.exports", "parquet", "dora-recordings"),
    ],
)
def test_a_bundled_name_stays_that_of_dora(group: Group, name: str, wheel: str) -> None:
    own = Addition(group, name, "own:own", wheel, "0.1.0")
    acme = Addition(group, name, "acme:acme", "dora-acme", "2")
    for others in ([own], []):  # also where the wheel of dora is not installed
        found = Plugins([acme, *others], {wheel: ["1"], "dora-acme": ["1"]})
        assert found.find(group, name) == (own if others else None)
        assert found.refusals() == [
            f"the {plugins.what(group, name)} of the plug-in dora-acme 2 is ignored, because dora"
            f" has its own; remove it: {uninstall_command('dora-acme')}"
        ]


@pytest.mark.parametrize("usable", ["dora-hello", "dora-other"])
def test_a_refused_plug_in_does_not_hide_another_one(usable: str) -> None:
    found = Plugins([OTHER, HELLO], {usable: ["1"]}).find("dora.commands", "hello")
    assert found is not None
    assert found.wheel == usable


def test_installed_wheels_are_read(wheels: PluginWheels) -> None:
    value = "hello_module:Things.hello"
    text = "class Things:\n    hello = 3\n"
    wheels.install("dora-hello", {"dora.commands": {"hello": value}}, hello_module=text)
    assert plugins.load("dora.commands", "hello") == 3
    addition = plugins.installed().find("dora.commands", "hello")
    assert addition == Addition("dora.commands", "hello", value, "dora-hello", "0.3")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("", "has no attribute 'hello'"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_named(
    wheels: PluginWheels, module: str, reason: str
) -> None:
    wheels.install("dora-hello", {"dora.commands": {"hello": "broken:hello"}}, broken=module)
    with pytest.raises(PluginError) as error:
        plugins.load("dora.commands", "hello")
    assert "the command `dora hello` of the plug-in dora-hello 0.3 cannot" in str(error.value)
    assert reason in str(error.value)
    assert str(error.value).endswith(f"repair or remove it: {uninstall_command('dora-hello')}")
    assert str(error.value) in list(plugins.problems({}))


def test_a_wheel_without_a_name_is_refused(wheels: PluginWheels) -> None:
    """As an interrupted installation leaves it."""
    wheels.install("dora-hello", {"dora.commands": {"hello": "json:loads"}})
    wheels.install("dora-other", {"dora.commands": {"other": "json:loads"}})
    (wheels.folder / "dora_hello-0.3.dist-info" / "METADATA").unlink()
    assert plugins.load("dora.commands", "other")
    [problem] = plugins.problems({})
    assert problem.startswith(
        f"the command `dora hello` (json:loads) is of a wheel in {wheels.folder} whose metadata has"
        " no name"
    )
    with pytest.raises(PluginError, match="whose metadata has no name"):
        plugins.load("dora.commands", "hello")


def test_entry_points_that_nothing_reads_are_reported(wheels: PluginWheels) -> None:
    additions = {"dora.command": {"hello": "json:loads"}, "dora.pages": {"mine": "json:loads"}}
    wheels.install("dora-hello", additions)
    by_name, by_group = sorted(plugins.problems({}))
    assert by_name == (
        "the entry point `mine` of the group `dora.pages` of the plug-in dora-hello 0.3 is not"
        " read; the names are beside, graph, show"
    )
    assert by_group.startswith("the group `dora.command` of the plug-in dora-hello is not read;")
    assert "dora.commands" in by_group


def test_what_a_module_prints_when_it_is_imported_is_not_output(
    wheels: PluginWheels, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels.install("a", {"dora.commands": {"noisy": "noisy:x"}}, noisy="print('noise')\nx = 3")
    assert plugins.load("dora.commands", "noisy") == 3
    assert capsys.readouterr() == ("", "noise\n")


def test_a_name_of_dora_itself_is_reported(wheels: PluginWheels) -> None:
    wheels.install("dora-hello", {"dora.commands": {"run": "json:loads"}})
    assert list(plugins.problems({})) == []
    [problem] = plugins.problems({"dora.commands": ["run"]})
    assert problem.startswith("the command `dora run` of the plug-in dora-hello 0.3 is ignored")


def test_a_format_is_imported_where_its_command_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel may have formats, and work without the wheel that reads them."""
    command = Addition("dora.commands", "recording", "json:loads", "dora-recordings")
    export = Addition("dora.exports", "csv", "nothing_of_this_name:csv", "dora-hello")
    for additions, problems in (([command, export], 1), ([export], 0)):
        found = Plugins(additions, {"dora-hello": ["1"], "dora-recordings": ["1"]})
        monkeypatch.setattr(plugins, "installed", lambda found=found: found)
        assert len(list(plugins.problems({}))) == problems


def test_names_of_this_project_have_a_wheel() -> None:
    assert plugins.known_names("dora.commands")["ros2"] == "dora-ros2"
    assert plugins.known_names("nodes")["dora-rerun"] == "dora-ui[rerun]"
    assert {"dora-ui", "dora-ros2"} <= plugins.known_wheels()
    sentence = plugins.missing("dora.commands", "ros2")
    assert sentence is not None
    assert sentence.endswith(f"\n  install it: {wheel_command('dora-ros2')}")
    assert plugins.missing("dora.commands", "nonsense") is None
