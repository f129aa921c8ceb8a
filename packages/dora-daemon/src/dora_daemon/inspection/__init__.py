"""The inspector: a process that reads outputs of a running dataflow for `dora topic echo` and `hz`.

A daemon starts one for each watch and ends it with the watch. It reads queues of its own, so that
neither runner nor daemon ever decodes a user's array, and whatever it meets there ends it alone.
"""
