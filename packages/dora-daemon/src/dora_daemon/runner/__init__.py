"""The runner of one dataflow: supervises its nodes, in the foreground or in a process of its own.

``dora run`` calls ``foreground.run``; a daemon starts ``python -m dora_daemon.runner DIRECTORY``
(see :mod:`dora_daemon.process_tree.runtime_dir` for the files in the directory).
"""
