"""Requests of other pages, other names and other browsers are refused."""

from __future__ import annotations

import pytest

from dora_ui.server import Access

PORT = 4100
HOST = f"127.0.0.1:{PORT}"
OWN = {"host": HOST, "origin": f"http://{HOST}"}


def access(*, read_only: bool = False) -> Access:
    return Access(
        port=PORT, session="session-secret", key="key-secret", folder="f", read_only=read_only
    )


def with_cookie(**headers: str) -> dict[str, str]:
    return {**OWN, "cookie": f"other=1; dora_ui_{PORT}=session-secret", **headers}


def test_the_key_works_once() -> None:
    one = access()
    assert not one.use_key("wrong")
    assert one.use_key("key-secret")
    assert not one.use_key("key-secret")


def test_the_cookie_is_not_readable_by_scripts_or_sent_by_other_pages() -> None:
    assert access().set_cookie().endswith("; HttpOnly; SameSite=Strict; Path=/f/")


def test_a_request_with_the_session_is_accepted() -> None:
    assert access().refuse("GET", with_cookie()) is None
    assert access().refuse("GET", with_cookie(), websocket=True) is None
    assert access().refuse("POST", with_cookie(**{"content-type": "application/json"})) is None


@pytest.mark.parametrize(
    "others",
    ["theme={'dark': [1, 2]}", "a b; c=d", "=;;=", 'x="', f"dora_ui_{PORT}=stale", "ключ=значение"],
)
def test_cookies_of_other_servers_on_this_computer_do_not_matter(others: str) -> None:
    own = f"dora_ui_{PORT}=session-secret"
    for cookie in (f"{others}; {own}", f"{own}; {others}", f"a=1; {own}; {others}"):
        assert access().refuse("GET", {**OWN, "cookie": cookie}) is None


@pytest.mark.parametrize(
    "cookie", ["", f"dora_ui_{PORT}=wrong", "dora_ui_4101=session-secret", "\x00;;=", "a=b"]
)
def test_a_request_without_the_session_is_refused(cookie: str) -> None:
    refused = access().refuse("GET", {**OWN, "cookie": cookie})
    assert refused is not None
    assert refused.status == 403
    assert "dora ui" in refused.message


@pytest.mark.parametrize(
    "host", ["", "example.org", f"example.org:{PORT}", "127.0.0.1", HOST + "0"]
)
def test_a_name_that_resolves_to_this_computer_is_refused(host: str) -> None:
    refused = access().refuse("GET", with_cookie(host=host))
    assert refused is not None
    assert refused.status == 421


@pytest.mark.parametrize(
    "origin", ["http://example.org", "null", f"https://{HOST}", f"http://localhost:{PORT}"]
)
def test_another_origin_is_refused(origin: str) -> None:
    for websocket in (False, True):
        refused = access().refuse("GET", with_cookie(origin=origin), websocket=websocket)
        assert refused is not None
        assert refused.status == 403


def test_a_change_and_a_websocket_need_an_origin() -> None:
    headers = with_cookie(**{"content-type": "application/json"})
    del headers["origin"]
    assert access().refuse("POST", headers) is not None
    assert access().refuse("GET", headers, websocket=True) is not None
    assert access().refuse("GET", headers) is None


def test_a_form_of_another_page_cannot_change_anything() -> None:
    refused = access().refuse("POST", with_cookie(**{"content-type": "text/plain"}))
    assert refused is not None
    assert refused.status == 415


def test_read_only_refuses_changes() -> None:
    headers = with_cookie(**{"content-type": "application/json"})
    refused = access(read_only=True).refuse("POST", headers)
    assert refused is not None
    assert "--read-only" in refused.message
    assert access(read_only=True).refuse("GET", headers) is None


def test_browsers_leave_out_the_usual_port() -> None:
    one = Access(port=80, session="s", key=None, folder="f")
    assert one.refuse_host({"host": "localhost", "origin": "http://localhost"}) is None
    assert access().refuse_host({"host": "localhost"}) is not None
