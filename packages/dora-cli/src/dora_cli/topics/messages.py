"""One watched message as a line of text; pure."""

from __future__ import annotations

import json


def message_row(text: str) -> str:
    """Return output, data and metadata of a message that arrived as JSON, on one line."""
    from dora_config.protocol.envelope import clean_text

    message = json.loads(text)

    def shown(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return clean_text(text, limit=len(text))

    row = f"{message['name']}\t data={shown(message['data'])} metadata={shown(message['metadata'])}"
    facts = message.get("shortened")
    if facts is None:
        return row
    return f"{row} (shortened: {', '.join(f'{name} {value}' for name, value in facts.items())})"
