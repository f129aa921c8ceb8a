"""The files of the page: size, licences, and nothing from other servers."""

from __future__ import annotations

import re

from dora_cli.ui import page

MOST_BYTES = 600_000


def test_the_page_is_small() -> None:
    assert (
        sum(path.stat().st_size for path in page.STATIC.rglob("*") if path.is_file()) < MOST_BYTES
    )


def test_every_library_has_a_licence_and_a_version() -> None:
    vendor = page.STATIC / "vendor"
    listing = (vendor / "README.md").read_text()
    for path in vendor.glob("*.js"):
        name = path.stem.partition("-")[0]
        assert (vendor / f"{name}.LICENSE").is_file(), path.name
        assert re.search(rf"{name} \d+\.\d+\.\d+", listing), path.name


def test_the_policy_allows_this_server_only() -> None:
    headers = page.headers(4100)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe" not in policy
    assert "https:" not in policy
    assert "frame-ancestors 'none'" in policy


def test_own_files_use_no_other_server_and_no_inline_script() -> None:
    for path in (*page.STATIC.glob("js/**/*.js"), page.STATIC / "app.css", page.INDEX):
        text = path.read_text().replace("http://www.w3.org/", "")
        assert "http://" not in text, path
        assert "https://" not in text.replace('"https:"', ""), path
        assert "innerHTML" not in text, path
    assert not re.search(r" on\w+=", page.INDEX.read_text())
