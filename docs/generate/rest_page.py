"""The page about the REST API: every operation with its arguments and results."""

from __future__ import annotations

from typing import Any

from tables import NOTICE, table

from dora_config.protocol.rest import openapi, paths
from dora_config.protocol.rest.errors import STATUSES

PAGE = "reference/rest.md"

INTRODUCTION = f"""\
{NOTICE}

# The REST API

The coordinator serves it on its port (6013), for scripts, dashboards and other languages. `dora list`, `stop`, `status` and `node` use it.
`GET {paths.OPENAPI}` returns an OpenAPI {openapi.OPENAPI_VERSION} document of all that follows, from which tools generate clients.

```sh
dora cluster ca > ca.pem
token=$(sed 's/.*\\.//' ~/.config/dora/token)     # the part behind the last dot
api=https://192.0.2.10:6013/api
curl --cacert ca.pem -H "Authorization: Bearer $token" $api/dataflows
curl --cacert ca.pem -H "Authorization: Bearer $token" -X POST $api/dataflows/demo/stop
curl --cacert ca.pem -H "Authorization: Bearer $token" -H "Content-Type: application/json" \\
    -d '{{"grace": 2}}' "$api/nodes/camera/restart"
```

- Each request needs the cluster's token. On the coordinator's own machine plain HTTP is served as well; see [Security](../explanation/security.md#the-control-plane).
- Arguments of GET are in the query, those of POST in a JSON object. Unknown arguments are refused. `GET` changes nothing.
- A dataflow is named by its UUID or its name. In a path, `/` in a name is written `%2F`.
- Requests that start, stop or restart are answered when that is done, and continue if the client disconnects meanwhile.
- Pages in a browser may use the API only from the coordinator's own address (`Origin`).
- Files: `GET {paths.RECORDINGS}/RECORDING/MACHINE/FILE` is a file of a [recording](../howto/record.md), with `Range`; `GET /api/artifacts/BUILD/NODE` the [code of a node](../howto/ship-code.md) as a tar archive.
- A POST with `descriptor` cannot run build commands: use `dora build` and `dora start` for dataflows with `build:`.
"""

ERRORS = """\
## Errors

Every error has a JSON body: `error` is a sentence, `code` one word for programs.

"""

CODES = {
    "invalid": "an argument is wrong",
    "version": "the protocol versions of client and coordinator are incompatible",
    "not_found": "the dataflow, machine, node or path does not exist",
    "nothing_runs": "no dataflow is running",
    "ambiguous": "several dataflows are running; name one",
    "conflict": "the name is in use, or the dataflow is running or being restarted already",
    "placement": "no machine matches a node, or a node must be built first",
    "failed": "it was tried and failed",
    "unavailable": "the coordinator is ending, or too many connections are open",
}
_OTHERS = (
    ("unauthorized", 401, "the token is missing or wrong"),
    ("forbidden", 403, "the request comes from a page of another site"),
    ("method_not_allowed", 405, "the path does not have this method"),
    ("tls_required", 426, "plain HTTP from another machine"),
    ("too_many_requests", 429, "too many failed authentications from this address"),
)


def render() -> str:
    document = openapi.document()
    parts = [INTRODUCTION]
    rows = [
        (f"`{method.upper()} {path}`", operation["summary"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts.append("## Operations\n\n" + table(("request", "what it does"), rows) + "\n")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            arguments = _arguments(operation)
            if arguments:
                head = ("argument", "in", "what it is")
                parts.append(f"### {method.upper()} {path}\n\n{table(head, arguments)}\n")
    codes = [(f"`{code}`", str(STATUSES[code]), CODES[code]) for code in STATUSES]
    codes += [(f"`{code}`", str(status), text) for code, status, text in _OTHERS]
    parts.append(ERRORS + table(("code", "status", "what is wrong"), codes) + "\n")
    return "\n".join(parts)


def _arguments(operation: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = [
        (f"`{one['name']}`", one["in"], one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get(paths.JSON_TYPE, {}).get("schema", {}).get("properties", {})
    rows += [(f"`{name}`", "body", value.get("description", "")) for name, value in body.items()]
    return rows
