"""Inspector process, which reads outputs of a running dataflow for `dora topic echo` and `hz`.

A daemon starts one per stream. It has its own queues, so that neither runner nor daemon decodes
arrays of users, and a crash affects only one stream.
"""
