"""The files of the page: size, licences, and nothing from other servers."""

from __future__ import annotations

import re

from dora_ui import page

MAX_BYTES = 2_300_000
"""Of which elkjs, the layout engine, takes 1.6 MB."""


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in page.STATIC.rglob("*") if path.is_file()) < MAX_BYTES


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


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (
        ((part + 0.055) / 1.055) ** 2.4 if part > 0.03928 else part / 12.92 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_enough_contrast() -> None:
    css = (page.STATIC / "app.css").read_text()
    blocks = re.findall(r":root[^{]*\{([^}]*--bg:[^}]*)\}", css)
    assert len(blocks) == 2  # light, dark
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        grounds = {
            tone: ["bg", "panel", "raised"]
            for tone in ("text", "muted", "accent", "ok", "busy", "warn", "bad", "done")
        }
        for tone in ("accent", "warn", "bad"):
            grounds[tone].append(f"{tone}-soft")
        for tone, names in grounds.items():
            for name in names:
                assert contrast(colours[tone], colours[name]) >= 4.5, (tone, name)
