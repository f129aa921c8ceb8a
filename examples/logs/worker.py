"""Logs in the three ways there are: logging, node.log, print."""

import logging

from dora import Node

node = Node()  # from here on, Python's logging ends up in dora's log
logging.debug("not shown: below min_log_level")
logging.info("started")
logging.getLogger("worker.motor").warning("motor is warm")
node.log("error", "motor stopped", target="worker.motor", fields={"celsius": "91"})
print("a printed line")
for _ in node:
    break  # one tick is enough
