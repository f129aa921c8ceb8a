"""A coordinator that accepts no connection now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.serving import served

from dora_config.cluster.models import Cluster, Coordinator, Machine


@contextmanager
def refusing(
    status: int, media_type: str = "text/plain; charset=utf-8", text: str = "too many connections\n"
) -> Iterator[Cluster]:
    """The cluster of a coordinator that answers all requests with an HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = refuse

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, served(server):
        address = Coordinator(addr="127.0.0.1", port=server.server_port)
        yield Cluster(coordinator=address, machines=(Machine(id="robot", host="robot"),))
