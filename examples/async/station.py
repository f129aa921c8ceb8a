"""Two tasks in one asyncio loop: one receives, one reports at its own pace."""

import asyncio

import pyarrow as pa

from dora import Node


async def receive(node: Node, readings: list[int]) -> None:
    """Collect readings until the stream ends."""
    while (event := await node.recv_async()) is not None:
        if event["type"] == "INPUT":
            readings.append(event["value"][0].as_py())


async def report(node: Node, readings: list[int]) -> None:
    """Send the number and the mean of the readings so far, five times a second."""
    while True:
        await asyncio.sleep(0.2)
        if readings:
            mean = sum(readings) / len(readings)
            node.send_output("report", pa.array([f"{len(readings)} readings, mean {mean:.1f}"]))


async def main() -> None:
    node = Node()
    readings: list[int] = []
    reporting = asyncio.create_task(report(node, readings))
    await receive(node, readings)
    reporting.cancel()
    print(f"received {len(readings)} readings, sum {sum(readings)}")


asyncio.run(main())
