"""Sends one message on each of many outputs every period; writes how many."""

import time

from payload import Payloads, setting, write_result, write_started

from dora import Node


def main() -> None:
    seconds, period = float(setting("SECONDS")), float(setting("PACE"))
    payloads = Payloads(int(setting("SIZE")))
    outputs = [f"topic{number}" for number in range(int(setting("TOPICS")))]
    node = Node()
    begun = time.monotonic()
    turn = 0
    while turn * period < seconds:
        time.sleep(max(0.0, begun + turn * period - time.monotonic()))
        for output in outputs:
            node.send_output(output, payloads.stamped(turn))
        turn += 1
        if turn == 5:
            write_started()
    spent = time.monotonic() - begun
    write_result({"series": [{"sent": turn * len(outputs), "seconds": spent}]})


if __name__ == "__main__":
    main()
