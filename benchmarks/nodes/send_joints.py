"""Sends small messages with the time of the send, a hundred in a second."""

import time

import pyarrow as pa
from payload import setting, write_result

from dora import Node


def main() -> None:
    node = Node()
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < float(setting("SECONDS")):
        time.sleep(max(0.0, begun + sent / 100 - time.monotonic()))
        node.send_output("state", pa.array([0.0] * 6), {"sent_ns": time.monotonic_ns()})
        sent += 1
    write_result({"sent": sent})


if __name__ == "__main__":
    main()
