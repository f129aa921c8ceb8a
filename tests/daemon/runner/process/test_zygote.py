"""Nodes that a zygote forks compared with the same nodes as programs, and the end of zygotes."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.runner.runs import gone
from support.waiting import wait_until

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.process import zygote as module
from dora_daemon.runner.process.environment import with_packages
from dora_daemon.runner.process.injection import LaunchFacts, make_package_folder
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import NodeProcess, spawn
from dora_daemon.runner.process.zygote import ZygoteProcess
from dora_node_api.protocol.spawn_request import SpawnRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has zygotes")

T = TypeVar("T")
Outcome = tuple[Exit, str, str]
"""Exit, standard output, standard error."""


class Bench:
    """Starts scripts in both ways. Use it inside the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = make_package_folder(folder / "packages")
        self.zygote = ZygoteProcess(lambda *words: self.warnings.append(words))
        self.reasons: list[str] = []
        self.warnings: list[tuple[str, str]] = []

    def request(self, text: str, *words: str, name: str = "node.py", **env: str) -> SpawnRequest:
        place = self.folder / "nodes"
        place.mkdir(exist_ok=True)
        script = place / name
        script.write_text(text)
        variables = with_packages({**os.environ, **env}, str(self.packages))
        argv = (sys.executable, "-u", str(script), *words)
        return SpawnRequest(argv, str(place), variables, open_files=(512, 1024))

    def expect(self, *, warm: tuple[str, ...] = ()) -> None:
        """Start the zygote."""
        spec = ResolvedNode(id="a", path="a.py", warm=warm)
        argv = (sys.executable, "-u", "/a.py")
        node = PreparedNode(spec, argv, self.folder, {}, LaunchFacts(argv, None), self.folder)
        self.zygote.expect([node] * module.WORTH_WAITING)

    @property
    def process(self) -> module._Process:
        assert self.zygote._process is not None
        return self.zygote._process

    async def fork(self, request: SpawnRequest) -> NodeProcess | None:
        """Return the process; None, and the reason in `reasons`, if it has to be a program."""
        forked: asyncio.Future[NodeProcess | None] = asyncio.Future()

        def done(process: NodeProcess | None, reason: str) -> None:
            if process is None:
                self.reasons.append(reason)
            forked.set_result(process)

        if not self.zygote.fork(request, done):
            return None
        return await forked

    async def both(self, request: SpawnRequest) -> tuple[Outcome, Outcome]:
        """Return the outcome of a node that is forked, and of a program."""
        process = await self.fork(request)
        assert process is not None, self.reasons
        return await outcome(process), await outcome(spawn(request))


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, what="the zygote")


async def ready(bench: Bench) -> None:
    """Wait until the zygote has imported what every node imports."""
    await until(lambda: bench.process.ready)


async def outcome(process: NodeProcess) -> Outcome:
    assert process.exit_fd is not None
    ended = asyncio.Event()
    printed: dict[int, bytes] = {process.stdout: b"", process.stderr: b""}
    loop = asyncio.get_running_loop()
    for number in printed:

        def read(number: int = number) -> None:
            if data := os.read(number, 65536):
                printed[number] += data
            else:
                loop.remove_reader(number)

        loop.add_reader(number, read)
    loop.add_reader(process.exit_fd, ended.set)
    async with asyncio.timeout(120):
        await ended.wait()
    loop.remove_reader(process.exit_fd)
    status = process.reap()
    assert status is not None
    for number in printed:
        loop.remove_reader(number)
        while True:
            try:
                data = os.read(number, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            printed[number] += data
    out, err = (printed[number].decode() for number in (process.stdout, process.stderr))
    process.close()
    return status, out, err


Use = Callable[[Callable[[Bench], Awaitable[T]]], T]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use[Any]:
    """Run a coroutine function with a bench."""
    monkeypatch.setattr(module, "LIMIT", 60.0)

    async def run(function: Callable[[Bench], Awaitable[T]]) -> T:
        bench = Bench(tmp_path)
        try:
            return await function(bench)
        finally:
            bench.zygote.close()

    return lambda function: asyncio.run(run(function))


FACTS = """
import gc, json, os, resource, signal, sys, threading, warnings, ctypes
import dora, pyarrow
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death), 0, 0, 0)
def shown(name):
    with open(f"/proc/self/{name}") as file:
        return file.read()
print(json.dumps({
    "argv": [sys.argv, sys.orig_argv, sys.flags, sys.warnoptions, sys.executable, sys.prefix],
    "path": sys.path,
    "main": [__name__, __file__, str(__spec__), __package__, __doc__, sorted(globals())],
    "main module": sys.modules["__main__"].__dict__ is globals(),
    "loader": [type(__loader__).__name__, __loader__.get_filename("__main__")],
    "cwd": [os.getcwd(), os.umask(0)],
    "environ": dict(os.environ),
    "shown": [shown("cmdline").replace("\\0", " "), shown("comm"),
              sorted(filter(None, shown("environ").split("\\0")))],
    "limits": [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n[:4] == "RLIM"
               and n != "RLIM_INFINITY"],
    "cpus": sorted(os.sched_getaffinity(0)),
    "priority": [os.nice(0), shown("oom_score_adj"), shown("cgroup")],
    "process": [os.getpgrp() == os.getpid(), os.getsid(0), os.getppid(), death.value],
    "descriptors": [os.readlink("/proc/self/fd/0"), sorted(os.listdir("/proc/self/fd"))],
    "signals": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
    "masks": [line for line in shown("status").splitlines() if line[:4] in ("SigB", "SigI")],
    "filters": [str(entry) for entry in warnings.filters],
    "gc": [gc.isenabled(), gc.get_threshold()],
    "threads": [threading.active_count(), threading.current_thread() is threading.main_thread()],
    "dora": [dora.__file__],
    "pid": os.getpid() == int(os.readlink("/proc/self")),
    "streams": [sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering,
                sys.stdout.write_through],
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
}, indent=1))
"""


def test_a_node_finds_what_a_program_finds(use: Use[None]) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        request = bench.request(FACTS, "--word", "two words", MARK="DORA é", TZ="Asia/Tokyo")
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored with `nohup pytest`
        try:
            (exit, out, err), (_, expected, _) = await bench.both(request)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert (exit, err) == (Exit(code=0), "")
        assert json.loads(out) == json.loads(expected)

    use(check)


def test_signals_that_a_script_ignores_are_handled_by_nodes(use: Use[None]) -> None:
    """A zygote starts before its runner has handlers; `dora run &` ignores SIGINT until then."""

    async def check(bench: Bench) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        bench.expect()
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
        request = bench.request(
            "import signal\nprint([signal.getsignal(n) for n in sorted(signal.valid_signals())])"
        )
        try:
            forked, program = await bench.both(request)
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        assert "default_int_handler" in forked[1]
        assert forked[1].partition(" at 0x")[0] == program[1].partition(" at 0x")[0]

    use(check)


PICKLED = """
import multiprocessing, pickle, sys
class Thing:
    def __eq__(self, other): return type(other) is Thing
def work(thing, connection):
    connection.send([type(thing).__module__, thing == Thing()])
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Thing())) == Thing()
    for way in ("spawn", "fork", "forkserver"):
        context = multiprocessing.get_context(way)
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(Thing(), theirs))
        process.start()
        print(way, ours.recv())
        process.join()
"""
ENDINGS = {
    "success": "print('done')",
    "code": "import sys; sys.exit(3)",
    "large code": "import sys; sys.exit(-1)",
    "text": "import sys; sys.exit('no camera')",
    "no code": "raise SystemExit",
    "error": "def f(): raise ValueError('bad')\nf()",
    "cause": "try: 1/0\nexcept ZeroDivisionError as error: raise OSError('x') from error",
    "syntax": "x = (",
    "encoding": "# -*- coding: latin-1 -*-\nprint(len('\\u00e9'), 'end')",
    "interrupt": "raise KeyboardInterrupt",
    "signal": "import os; os.kill(os.getpid(), 11)",
    "term": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "hook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1/0",
    "bad hook": "import sys\nsys.excepthook = lambda *a: 1/0\nint('x')",
    "at exit": (
        "import atexit\natexit.register(print, 1)\natexit.register(print, 2)\nraise SystemExit(4)"
    ),
    "destructor": "class A:\n  def __del__(self): print('gone', A is None, __name__)\na = A()",
    "kept destructor": (
        "import signal\nclass A:\n  def __del__(self): print('gone')\na = A()\n"
        "signal.signal(signal.SIGTERM, lambda *_: a)"
    ),
    "cycle": "class A:\n  def __del__(self): print('gone')\na = A(); a.a = a; del a",
    "thread": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(.1), print('thread'))).start()\nprint('main')"
    ),
    "daemon thread": (
        "import threading, time\ndef f():\n  while True: time.sleep(.001)\n"
        "threading.Thread(target=f, daemon=True).start()\nclass A:\n"
        "  def __del__(self): print('gone')\na = A()\nprint('main')"
    ),
    "interrupted thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "raise KeyboardInterrupt"
    ),
    "executor": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ThreadPoolExecutor(2).submit(print, 'done')"
    ),
    "stdout": "import sys\nsys.stdout = open('printed', 'w')\nprint('x')",
    "closed": "import sys\nsys.stdout.close()",
    "no stdout": "import sys\nsys.stdout = None\nprint('x')",
    "warning": "import warnings\nwarnings.warn('careful')",
    "multiprocessing": PICKLED,
    "child": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(5)'])",
    "fork": "import os\npid = os.fork()\nif pid == 0: os._exit(7)\nprint(os.waitpid(pid, 0)[1])",
    "random": "import random\nprint(0 <= random.random() < 1)",
    "arrow": (
        "import pyarrow as pa, pyarrow.compute as pc\n"
        "print(pc.sum(pa.array(range(100000))), pa.array(['a']).to_pylist())"
    ),
    "numpy": "import numpy as np\na = np.ones((300, 300))\nprint((a @ a).sum())",
    "tee": (
        "import sys\nclass Tee:\n  def __init__(self): self.log = open('unflushed', 'w')\n"
        "  def write(self, text): self.log.write(text)\n  def flush(self): pass\n"
        "sys.stdout = Tee()\nprint('x' * 5)"
    ),
    "file of a loaded module": (
        "import builtins\nbuiltins.log = open('unflushed', 'w')\nbuiltins.log.write('kept')"
    ),
    "file in a cycle": (
        "class A:\n  log = open('unflushed', 'w')\n  def __init__(self): self.me = self\n"
        "A.log.write('kept')\na = A()"
    ),
    "cached file": (
        "import functools\n@functools.lru_cache\ndef log(): return open('unflushed', 'w')\n"
        "log().write('kept')"
    ),
    "destructor of a loaded module's object": (
        "import json\nclass A:\n  def __del__(self): print('gone')\njson.a = A()"
    ),
    "generator of a loaded module": (
        "import json\ndef f():\n  try: yield\n  finally: print('gone')\njson.a = f()\nnext(json.a)"
    ),
    "array of a file": (
        "import json, numpy as np\njson.log = np.memmap('unflushed', 'u1', 'w+', shape=4)\n"
        "json.log[:] = 65"
    ),
    "logs": (
        "import logging\nlogging.basicConfig(filename='unflushed', level=0)\n"
        "log = logging.getLogger('a')\nlog.info('kept')"
    ),
    "finalizer": "import json, weakref\nclass A: pass\njson.a = A()\n"
    "weakref.finalize(json.a, print, 'gone')",
    "end of a C library": (
        "import ctypes, json\njson.end = ctypes.CFUNCTYPE(None)(lambda: print('gone'))\n"
        "ctypes.CDLL(None).printf(b'kept')"
    ),
    "end of another library": (
        "import ctypes\nctypes.CDLL('libanl.so.1')\nlibc = ctypes.CDLL(None)\n"
        "libc.strdup.restype = ctypes.c_void_p\n"
        "libc.__cxa_atexit(libc.puts, ctypes.c_void_p(libc.strdup(b'gone')), None)"
    ),
    "code at exit": "import atexit, os, sys\natexit.register(os._exit, 9)\nsys.exit(3)",
    "last error": (
        "import atexit, sys\natexit.register(lambda: print(sys.last_type, sys.last_value))\n1/0"
    ),
    "kind of interrupt": "class A(KeyboardInterrupt): pass\nraise A('x')",
    "flush": (
        "import sys\nclass A:\n  write = print\n  flush = None\n"
        "  def __repr__(self): return 'a'\nsys.stdout = A()"
    ),
    "exit hook": "import sys\nsys.excepthook = lambda *a: sys.exit(5)\n1/0",
    "module": (
        "import sys, types\nm = types.ModuleType('m')\nsys.modules['m'] = m\nclass A:\n"
        "  def __del__(self): print('gone')\nm.a = A()"
    ),
}


def test_the_runner_adopts_a_node_however_soon_it_is_forked(
    use: Use[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = socket.send_fds
    adopts = []

    def slow_to_return(*arguments: Any) -> int:
        sent: int = send(*arguments)
        flag = ctypes.c_int()  # of PR_GET_CHILD_SUBREAPER
        ctypes.CDLL(None).prctl(37, ctypes.byref(flag), 0, 0, 0)
        adopts.append(flag.value)
        return sent

    async def check(bench: Bench) -> None:
        bench.expect()
        monkeypatch.setattr(socket, "send_fds", slow_to_return)
        process = await bench.fork(bench.request("print('up')"))
        assert process is not None, bench.reasons
        await outcome(process)

    use(check)
    assert adopts == [1]


@pytest.mark.parametrize("group", range(2))
def test_a_node_ends_as_a_program_ends(use: Use[None], group: int) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        for name, text in list(ENDINGS.items())[group::2]:
            request = bench.request(text)
            process = await bench.fork(request)
            assert process is not None, (name, bench.reasons)
            as_node = await outcome(process), unflushed(request)
            assert as_node == (await outcome(spawn(request)), unflushed(request)), name

    use(check)


def test_the_end_of_a_node_spares_the_modules_that_nodes_share() -> None:
    """What they reference has no effects at its end, apart from this callback."""
    program = """
import gc, json, sys, weakref
from dora_node_api.zygote import _end
class Thing: pass
_end.keep()
gc.freeze()
json.thing = Thing()
json.reference = weakref.ref(json.thing, lambda _: print("torn down"))
try:
    sys.exit(5)
except SystemExit as ended:
    if sys.argv[1:]:
        _end.expect(ended.code)
    raise
"""
    for words, printed in (([], "torn down\n"), (["early"], "")):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (5, printed, "")


def unflushed(request: SpawnRequest) -> bytes | None:
    """Return what a node left in a file that it did not close."""
    file = Path(request.cwd) / "unflushed"
    if not file.exists():
        return None
    text = file.read_bytes()
    file.unlink()
    return text


WAITING = "import sys\nprint('up', flush=True)\nsys.stdin.read(); import time\ntime.sleep(600)"


async def line(process: NodeProcess) -> str:
    """Return the first line that a process prints."""
    loop, printed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.stdout, printed.set)
    async with asyncio.timeout(60):
        await printed.wait()
    loop.remove_reader(process.stdout)
    return os.read(process.stdout, 65536).decode().strip()


async def forked(bench: Bench, request: SpawnRequest) -> NodeProcess:
    """Fork a node, if need be after others that had to be programs."""
    async with asyncio.timeout(60):
        while (process := await bench.fork(request)) is None:  # noqa: ASYNC110 - a try each
            await asyncio.sleep(0.02)
    return process


def zygote_pid(bench: Bench) -> int:
    assert bench.zygote._process is not None
    return bench.zygote._process.pid


def end(process: NodeProcess) -> None:
    process.signal_group("SIGKILL")
    process.wait()
    process.close()


def test_nodes_outlive_a_killed_zygote_and_another_one_forks_the_next(use: Use[None]) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        first = await forked(bench, bench.request(WAITING))
        assert await line(first) == "up"
        killed = zygote_pid(bench)
        os.kill(killed, signal.SIGKILL)
        second = await forked(bench, bench.request(WAITING))
        assert zygote_pid(bench) != killed
        assert await line(second) == "up"
        assert first.reap() is None
        os.kill(first.pid, signal.SIGSEGV)
        assert (await outcome(first))[0] == Exit(signal="SIGSEGV")
        end(second)

    use(check)


def test_a_zygote_that_does_not_answer_is_ended(
    use: Use[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        end(await forked(bench, bench.request(WAITING)))
        monkeypatch.setattr(module, "LIMIT", 0.3)
        stopped = zygote_pid(bench)
        os.kill(stopped, signal.SIGSTOP)
        requests = [bench.fork(bench.request(WAITING)) for _ in range(module.MAX_OUTSTANDING + 2)]
        assert set(await asyncio.gather(*requests)) == {None}
        # the first time limit ends it, and with it the other requests
        assert bench.reasons[0] == "the zygote did not answer within 0.3 s"
        assert set(bench.reasons[1:]) <= {bench.reasons[0], "the zygote has ended"}
        gone(stopped)
        monkeypatch.setattr(module, "LIMIT", 60.0)
        end(await forked(bench, bench.request(WAITING)))

    use(check)


def test_a_request_that_was_given_up_starts_nothing(use: Use[None]) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        flag = bench.folder / "ran"
        request = bench.request(f"open({str(flag)!r}, 'w')")
        assert (await outcome(await forked(bench, request)))[0] == Exit(code=0)
        flag.unlink()
        bench.zygote.fork(request, lambda *_: None)
        fork = bench.zygote._outstanding[0]
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(fork.channel, asked.set)
        await asked.wait()
        pid = json.loads(fork.channel.recv(100, socket.MSG_PEEK))["pid"]
        bench.zygote.close()
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends
        assert not flag.exists()

    use(check)


def test_a_changed_module_is_loaded_again(
    use: Use[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "mine.py").write_text("VALUE = 1")
    (library / "ends.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(library))

    async def check(bench: Bench) -> None:
        bench.expect(warm=("mine", "absent", "ends"))
        request = bench.request("import mine; print(mine.VALUE)")
        assert (await outcome(await forked(bench, request)))[1] == "1\n"
        assert [(node, text.split("; ")[0]) for node, text in bench.warnings] == [
            (
                "a",
                f'cannot import "{name}" of `warm` before the node is forked: {error}',
            )
            for name, error in (
                ("absent", "ModuleNotFoundError: No module named 'absent'"),
                ("ends", "SystemExit: 3"),
            )
        ]
        (library / "mine.py").write_text("VALUE = 20")
        assert await bench.fork(request) is None
        assert "mine.py has changed" in bench.reasons[-1]
        assert (await outcome(await forked(bench, request)))[1] == "20\n"
        (library / "other.py").touch()
        assert await bench.fork(request) is None
        assert str(library) in bench.reasons[-1]
        assert len(bench.warnings) == 2  # although another zygote has tried

    use(check)


def test_modules_of_warm(use: Use[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of numpy differ in each node; a module that starts a thread ends the forks."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def check(bench: Bench) -> None:
        bench.expect(warm=("numpy.random",))
        request = bench.request(
            "import sys; print('numpy.random' in sys.modules)\n"
            "import numpy; print(numpy.random.random())"
        )
        printed = [(await outcome(await forked(bench, request)))[1].split() for _ in range(2)]
        assert [words[0] for words in printed] == ["True", "True"]
        assert printed[0] != printed[1]
        bench.expect(warm=("threaded",))
        assert await bench.fork(request) is None
        assert "starts threads (threaded)" in bench.reasons[-1]

    use(check)


def test_a_module_of_warm_that_hangs_or_starts_processes(
    use: Use[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that computes is waited for."""
    pids = tmp_path / "pids"
    (tmp_path / "slow.py").write_text("import time; time.sleep(600)")
    (tmp_path / "busy.py").write_text(
        "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
    )
    (tmp_path / "forking.py").write_text(
        "import os, subprocess, sys, time\n"
        f"name = {str(pids)!r}\n"
        'code = \'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid()));'
        " time.sleep(600)'\n"
        "subprocess.Popen([sys.executable, '-c', code, name], start_new_session=True)\n"
        "while not os.path.exists(name) or not open(name).read(): time.sleep(0.01)\n"
        "os.fork()\n"  # its child goes on as the zygote would
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def check(bench: Bench) -> None:
        bench.expect(warm=("busy", "forking"))
        await ready(bench)
        monkeypatch.setattr(module, "LIMIT", 0.5)
        request = bench.request("import sys; print('busy' in sys.modules)")
        assert (await outcome(await forked(bench, request)))[1] == "True\n"
        ((_, text),) = bench.warnings
        assert 'cannot import "forking" of `warm`' in text
        assert "it starts processes, which were ended" in text
        gone(int(pids.read_text()))

    use(check)
    monkeypatch.setattr(module, "LIMIT", 60.0)

    async def hang(bench: Bench) -> None:
        bench.expect(warm=("slow",))
        await ready(bench)
        monkeypatch.setattr(module, "LIMIT", 0.5)
        request = bench.request("print(1)")
        assert await bench.fork(request) is None
        # a multiple of the limit, as long as the first imports take processor time
        assert "the zygote did not answer within" in bench.reasons[0]
        monkeypatch.setattr(module, "LIMIT", 60.0)
        ((node, text),) = bench.warnings
        assert (node, "list only modules whose import ends soon" in text) == ("a", True)
        assert 'cannot import "slow" of `warm`' in text
        assert (await outcome(await forked(bench, request)))[1] == "1\n"

    use(hang)


def test_a_stop_does_not_wait_for_the_import_of_a_module(
    use: Use[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def check(bench: Bench) -> None:
        bench.expect(warm=("slow",))
        waiting = asyncio.ensure_future(bench.fork(bench.request("print(1)")))
        await until(lambda: bench.process.importing == "slow")
        bench.zygote.stop_import()
        assert await waiting is None

    use(check)


def test_a_node_that_sets_a_variable_of_numpy_itself_is_warned(use: Use[None]) -> None:
    async def check(bench: Bench) -> None:
        bench.expect()
        request = bench.request(
            "import os; os.environ.update(OPENBLAS_NUM_THREADS='1', OMP_NUM_THREADS='1', OWN='1')"
        )
        _, _, stderr = await outcome(await forked(bench, request))
        assert stderr.startswith("OPENBLAS_NUM_THREADS is set too late")
        assert stderr.count("\n") == 1
        request = bench.request("import os; os.environ['OWN'] = ''")
        assert (await outcome(await forked(bench, request)))[2] == ""

    use(check)


def test_a_node_that_is_not_forked(use: Use[None]) -> None:
    """The reason comes from the zygote; the table of all of them is that of `why_not`."""

    async def check(bench: Bench) -> None:
        bench.expect()
        request = bench.request(WAITING, name="queue.py")
        assert await bench.fork(request) is None
        assert await bench.fork(bench.request(WAITING, PYTHONUTF8="1")) is None
        assert "queue" in bench.reasons[0]
        (bench.folder / "nodes" / "queue.py").unlink()
        assert await bench.fork(bench.request("", name="gone.py", PYTHONUTF8="1")) is None
        assert "PYTHONUTF8" in bench.reasons[1] + bench.reasons[2]

    use(check)
