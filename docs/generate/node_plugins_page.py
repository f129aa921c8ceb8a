"""Names of the package `dora` that the plug-ins of this project have, with their wheels."""

from __future__ import annotations

import json

import plugins_page

PAGE = "../packages/dora-node-api/src/dora_node_api/known_plugins.json"


def render() -> str:
    return json.dumps(plugins_page.names()["dora.node_api"], indent=2)
