"""Sends for a while, as fast as possible or at a pace; writes the times of the sends."""

import time

from payload import Payloads, setting, write_result, write_started

from dora import Node


def main() -> None:
    seconds = float(setting("SECONDS"))
    pace = float(setting("PACE"))  # seconds from send to send; 0 = as fast as possible
    most = int(setting("MOST"))
    prepared = [Payloads(int(size)) for size in setting("SIZE").split(",")]
    node = Node()
    results = [_send(node, payloads, seconds, pace, most) for payloads in prepared]
    write_result({"series": results})


def _send(
    node: Node, payloads: Payloads, seconds: float, pace: float, most: int
) -> dict[str, float | list[int]]:
    took: list[int] = []
    begun = time.monotonic()
    end = begun + seconds
    sent = 0
    while sent < most and time.monotonic() < end:
        if pace:
            time.sleep(max(0.0, begun + sent * pace - time.monotonic()))
            payload = payloads.stamped(sent)
            start = time.perf_counter_ns()
            node.send_output("data", payload)
            took.append(time.perf_counter_ns() - start)
        else:
            node.send_output("data", payloads.stamped(sent))
        sent += 1
        if sent == 100:
            write_started()
    return {"sent": sent, "seconds": time.monotonic() - begun, "took_ns": took}


if __name__ == "__main__":
    main()
