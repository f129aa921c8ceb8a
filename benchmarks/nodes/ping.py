"""Sends a payload, waits for its echo, again and again; writes the round trips, in ns."""

import time

from payload import Payloads, setting, write_result

from dora import Node


def main() -> None:
    size, seconds = int(setting("SIZE")), float(setting("SECONDS"))
    payloads = Payloads(size)
    node = Node()
    trips: list[int] = []
    wrong = 0
    warm_up = 3 if size >= 1 << 22 else 50
    most = warm_up + int(setting("MOST"))
    begun = time.monotonic()
    for turn in range(most):
        if turn == warm_up:
            begun = time.monotonic()
        if turn >= warm_up + 5 and time.monotonic() - begun > seconds:
            break
        payload = payloads.stamped(turn)
        start = time.perf_counter_ns()
        node.send_output("ping", payload)
        event = node.next(timeout=30)
        if event is None or event["type"] != "INPUT":
            raise SystemExit(f"no echo of message {turn}: {event}")
        echo = event["value"]
        trips.append(time.perf_counter_ns() - start)
        wrong += not payloads.is_stamped(echo, turn)
        del event, echo
    spent = time.monotonic() - begun
    measured = trips[warm_up:]
    write_result({"trips_ns": measured, "per_second": len(measured) / spent, "wrong": wrong})


if __name__ == "__main__":
    main()
