"""Paths and the User-Agent of the REST API."""

from __future__ import annotations

from dora_config.protocol.rest import paths


def test_names_in_paths_are_percent_encoded() -> None:
    assert paths.url(paths.DATAFLOWS, "a/b ü", "stop") == "/api/dataflows/a%2Fb%20%C3%BC/stop"


def test_errors_of_the_rest_api_are_json() -> None:
    for path in ("/api/nodes", "/api/dataflows/a/stop", "/api/openapi.json"):
        assert paths.is_rest(path)
    for path in ("/api/control", "/api/nodesx", "/api/files/a", "/"):
        assert not paths.is_rest(path)


def test_a_user_agent_of_dora_has_its_versions() -> None:
    assert paths.user_agent("dora", "0.1.0", (1, 2)) == "dora/0.1.0 protocol/1.2"
    assert paths.parse_user_agent("dora/0.1.0 protocol/1.2") == ("dora", "0.1.0", 1, 2)
    for other in ("", "curl/8.0", "Mozilla/5.0 (X11)", "dora/0.1.0"):
        assert paths.parse_user_agent(other) is None
