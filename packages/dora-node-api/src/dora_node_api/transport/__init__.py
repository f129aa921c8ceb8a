"""The data plane on one machine: kernel pipes with 64-byte records, payloads in shared memory.

The runner makes a `Board` (counters of the dataflow) and, for every input, a queue
(`create_queue`), whose `QueueKeeper` writes the lifecycle records. A producer sends through a
`Sender`; a consumer reads through one `Receiver` for each input and sleeps in a `Waiter`.
"""
