"""Forks nodes from a process that has imported what every node imports.

The runner starts it, and sends requests on a SOCK_SEQPACKET socket: JSON with three descriptors, of
the node's standard output, its standard error and a socket for this request. On that socket the
node sends its pid once it is a child of the runner, and runs when the runner has confirmed it; a
refusal is sent there as well. When it ends early the node ends, so a request that the runner has
given up starts nothing.

A node is a child of the runner, which is a subreaper meanwhile: a process between the two forks it
and ends. Whatever a fork cannot give a node is refused by `why_not`; then the runner starts the
node as a program.
"""

# ruff: noqa: PTH116, PTH118, PTH120, SIM105 - other modules than a node imports
from __future__ import annotations

import builtins
import ctypes
import gc
import importlib
import importlib.machinery
import io
import itertools
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dora_node_api.loaded_libraries import loaded_libraries, release_pages
from dora_node_api.protocol.spawn_request import SpawnRequest, lead_group

CHANNEL = 3
"""Descriptor on which the runner sends requests."""
MAX_REQUEST = 1 << 20
"""Largest request in bytes."""
MAX_BESIDE = 5000
"""Most entries of a node's folder that are examined."""
QUIET_SECONDS = 0.05
"""Time without a request after which the pages of libraries are released."""
MODULES = (
    "dora_node_api.backends.runner",
    "dora_node_api.data.arrow",
    "dora_node_api.logging.logging_bridge",
    "dora_node_api.node",
    "dora_node_api.protocol.launch_config",
    "random",
)
"""Modules that every node imports, and `random`, which many do. Of libraries only pyarrow, which
imports numpy, and what the dataflow lists in `warm`."""
READ_BY_LIBRARIES = (
    *("OMP_", "KMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NUMPY_", "NPY_", "ARROW_"),
    *("JE_ARROW_", "MIMALLOC_"),
)
"""Prefixes of the variables that numpy and pyarrow read when they are loaded."""
READ_AT_START = (
    *READ_BY_LIBRARIES,
    *("PYTHON", "LD_", "GLIBC_TUNABLES", "MALLOC_", "HOME", "LC_", "LANG", "SSL_", "OPENSSL_"),
    *("COVERAGE_", "COV_", "DD_", "DEBUGPY_", "PYDEVD_"),
)
"""Prefixes of these, and of the variables that programs read when they start."""
BUFFERING = ("pyarrow", "numpy")
"""Libraries with objects that may write, or end others, at their end."""
_PATH = "PYTHONPATH"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_REPARENTING_SECONDS = 10.0
"""Limit for the end of the process between the two forks."""
ROOM = "_DORA_ROOM"
"""Variable that enlarges the environment of a process, so that `show` has room for a longer one."""
_C = ctypes.CDLL(None)
_C_WITH_GIL = ctypes.PyDLL(None)
"""C library; calls keep the GIL."""


# --- decisions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts that decide whether this process can become a node."""

    environ: Mapping[str, str]
    """Environment of this process."""
    loaded: Collection[str]
    """Names of the modules that this process has imported."""
    changed: str | None = None
    """A file or folder of these modules that has changed since."""
    strange: str | None = None
    """Effect of the start-up files that a fork does not carry over."""


def why_not(process: SpawnRequest, beside: Iterable[str], begin: bytes, facts: Facts) -> str | None:
    """Return why a node cannot be forked, None if it can; pure.

    ``beside``: names of importable files in the folder that is first on its path. ``begin``: first
    bytes of its file.
    """
    argv, variables = process.argv, process.env
    if facts.strange is not None:
        return facts.strange
    if facts.changed is not None:
        return f"{facts.changed} has changed"
    if argv[2:3] != ("-m",) and (not argv[2:] or not argv[2].startswith("/")):
        return "its file is not an absolute path"
    if begin[:2] == b"PK" or begin[2:4] == b"\r\n":
        return "its file is an archive or compiled"
    own = _read_at_start(variables)
    ours = _read_at_start(facts.environ)
    for name in sorted({*own, *ours}):
        if own.get(name) != ours.get(name):
            return f"its {name} differs from the runner's"
    first, _, rest = variables.get(_PATH, "").partition(":")
    if rest != facts.environ.get(_PATH, "") or not first.startswith("/"):
        return f"its {_PATH} differs from the runner's"
    if rest and not all(entry.startswith("/") for entry in rest.split(":")):
        return f"its {_PATH} has relative entries"
    shadowing = sorted(set(beside) & set(facts.loaded))
    return f"a module beside its file is called {shadowing[0]}" if shadowing else None


def _read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in variables.items() if k.startswith(READ_AT_START) and k != _PATH}


def importable(entries: Iterable[tuple[str, bool]]) -> list[str]:
    """Return the names of modules that a folder with these entries (name, is a folder) may have."""
    files = (".py", ".pyc", ".so")
    return [name.partition(".")[0] for name, folder in entries if folder or name.endswith(files)]


# --- the zygote ---------------------------------------------------------------------------------


def _reseed() -> None:
    """Seed the random numbers of numpy anew in each node; Python does so itself."""
    if (random := sys.modules.get("numpy.random")) is not None:
        random.seed()


class ForkRequest:
    """One request, and the descriptors that came with it."""

    def __init__(self, data: bytes, descriptors: list[int]) -> None:
        values: dict[str, Any] = json.loads(data)
        self.process = SpawnRequest.from_json(values["process"])
        self.warm: list[str] = values["warm"]
        *self.outputs, number = descriptors
        self.channel = socket.socket(fileno=number)

    def close(self) -> None:
        for number in self.outputs:
            os.close(number)
        self.channel.close()

    def refuse(self, problem: str, **more: object) -> None:
        """Send a refusal; the runner may have given up the request."""
        self.send({"problem": problem, **more})
        self.close()

    def send(self, answer: Mapping[str, object]) -> None:
        try:
            self.channel.send(json.dumps(answer).encode())
        except OSError:
            pass

    @property
    def folder(self) -> str:
        """The first entry of its path."""
        if self.process.argv[2] == "-m":
            return self.process.cwd
        return os.path.dirname(os.path.realpath(self.process.argv[2]))


class Zygote:
    """Answers requests; in a new node, `serve` returns its request."""

    def __init__(self, channel: socket.socket, runner: int) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._runner = runner
        self._environ = dict(os.environ)
        self._files = ""
        """Files of the imported modules, one a line."""
        self._known: list[str] = []
        """State of the modules after their import."""
        self._tried: set[str] = set()
        self._strange: str | None = None
        self._released = False
        """Whether the pages of the imported libraries were released."""

    def prepare(self) -> None:
        """Import what every node needs, then report that the zygote is ready."""
        if _threads() > 1:
            self._strange = "start-up files of its Python start threads"
        show([sys.executable, "-m", "dora_node_api.zygote"], self._environ)
        from dora_node_api.data.arrow import load_pyarrow

        load_pyarrow()
        self.load(MODULES)
        gc.disable()
        self._report(ready="yes")

    def load(self, names: Iterable[str]) -> None:
        """Import modules that are not imported yet; those that fail are left to the node."""
        missing = [name for name in names if name not in self._tried]
        self._tried.update(missing)
        for name in missing:
            self._report(importing=name)
            self._import(name)
        self._report(importing="")
        if missing:
            self._released = False
            if threading.active_count() > 1:
                self._strange = f"a module of `warm` starts threads ({', '.join(missing)})"
            _end.keep()
            self._files = imported_files()
            self._known = snapshot(self._files)
            gc.collect()
            gc.freeze()

    def _import(self, name: str) -> None:
        """Import a module, and end the processes that it starts."""
        # Orphans of the processes that a module starts become children of this process.
        _C.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of libraries
            self._fail(name, f"{type(error).__name__}: {error}")
        if os.getpid() != self._pid:
            os._exit(0)  # a fork of the module
        if _end_children():
            self._fail(name, "it starts processes, which were ended")
        _C.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _fail(self, name: str, error: str) -> None:
        if os.getpid() == self._pid:
            self._report(failed=name, error=error[:500])

    def _report(self, **facts: str) -> None:
        """Report that the zygote is ready, what it imports, or why it could not import a module."""
        self._channel.send(json.dumps(facts).encode())

    def serve(self) -> ForkRequest | None:
        """Answer requests until the runner closes its end; then return None."""
        while requests := self._receive():
            warm = {name: None for request in requests for name in request.warm}
            self.load(warm)
            changed = self._changed()
            facts = Facts(self._environ, sys.modules.keys(), changed, self._strange)
            accepted = []
            for request in requests:
                if (problem := self._problem(request, facts)) is not None:
                    request.refuse(problem, stale=changed is not None)
                else:
                    accepted.append(request)
            if accepted and (own := self._fork(accepted)) is not None:
                return own
        return None

    def _changed(self) -> str | None:
        """Return an imported file or folder that has changed."""
        lines = itertools.zip_longest(snapshot(self._files), self._known, fillvalue="")
        changed = ((now or known) for now, known in lines if now != known)
        return next((line.partition("\0")[0] for line in changed), None)

    def _problem(self, request: ForkRequest, facts: Facts) -> str | None:
        try:
            with os.scandir(request.folder) as entries:
                some = list(itertools.islice(entries, MAX_BESIDE + 1))
            if len(some) > MAX_BESIDE:
                return f"its folder has more than {MAX_BESIDE} entries"
            beside = importable((entry.name, entry.is_dir()) for entry in some)
            begin = b""
            if request.process.argv[2] != "-m":
                with open(request.process.argv[2], "rb") as file:
                    begin = file.read(4)
        except OSError as error:
            return str(error)
        return why_not(request.process, beside, begin, facts)

    def _receive(self) -> list[ForkRequest]:
        """Wait for a request; take those that wait already."""
        requests: list[ForkRequest] = []
        if not (self._released or select.select([self._channel], (), (), QUIET_SECONDS)[0]):
            release_pages()
            self._released = True
        while not requests or select.select([self._channel], (), (), 0)[0]:
            data, numbers, _, _ = socket.recv_fds(self._channel, MAX_REQUEST, 3)
            if not data:
                break
            requests.append(ForkRequest(data, numbers))
        return requests

    def _fork(self, requests: list[ForkRequest]) -> ForkRequest | None:
        """Fork the nodes from a process that ends; return a request in the process of its node."""
        middle = _fork()
        if middle:
            for request in requests:
                request.close()
            os.waitpid(middle, 0)
            return None
        middle = os.getpid()
        while requests:
            request = requests.pop(0)
            try:
                node = _fork()
            except OSError as error:
                request.refuse(str(error))
                continue
            if node == 0:
                self._channel.close()
                for other in requests:
                    other.close()
                _become(request, middle, self._runner)
                return request
            request.close()
        os._exit(0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns about threads of libraries, but these libraries handle forks.
        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
        return os.fork()


def _end_children() -> bool:
    """Kill the children of this process; return whether it had some."""
    found = False
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        found = True
        if not ended:
            _kill_children()
            os.waitpid(-1, 0)


def _kill_children() -> None:
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as file:
            for pid in file.read().split():
                os.kill(int(pid), signal.SIGKILL)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def imported_files() -> str:
    """Return the files of all modules, one a line."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return "\n".join(path for path in files if isinstance(path, str))


def snapshot(files: str) -> list[str]:
    """Return the state of imported files, and what can be imported from each folder: a line each.

    It reads a text, not the modules: Python writes to each object that it reads, and nodes share
    only pages that nothing has written.
    """
    found = [f"{path}\0{_state(path)}" for path in files.split("\n")]
    for folder in sys.path:
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        entries = [
            (name, _state(os.path.join(folder, name)) if name.endswith(".pth") else None)
            for name in names
            if name.endswith((".py", ".pyc", ".so", ".pth", "-info")) or "." not in name
        ]
        found.append(f"{folder}\0{sorted(entries)}")
    return found


def _state(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


# --- a node -------------------------------------------------------------------------------------


def _become(request: ForkRequest, middle: int, runner: int) -> None:
    """Turn this process into one that the runner would start, and wait for the runner."""
    process = request.process
    try:
        for number, descriptor in enumerate(request.outputs, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(process.cwd)
        process.apply()
        show(process.argv, process.env)
        time.tzset()
        _reseed()
        _wait_for_end(middle)
        # Not set earlier: the end of the former parent would send the signal.
        _C.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != runner:
            os._exit(127)
        request.send({"pid": os.getpid()})
        if not request.channel.recv(1):
            os._exit(127)
        request.channel.close()
    except (OSError, ValueError) as error:
        request.send({"problem": str(error)})
        os._exit(127)


def _wait_for_end(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(process, "rb", buffering=0):
        ended = select.poll()
        ended.register(process, select.POLLIN)
        ended.poll(_REPARENTING_SECONDS * 1000)


def show(argv: Iterable[str], variables: Mapping[str, str]) -> None:
    """Set the environment of this process; let /proc, and so `ps`, show it and a command line.

    They replace, as with setproctitle(3), what the process was started with, and longer texts are
    cut off. Raises OSError.
    """
    os.environ.clear()  # first, because C libraries use the former memory until then
    os.environ.update(variables)
    words = os.fsencode(" ".join(argv))
    texts = b"".join(os.fsencode(f"{name}={text}") + b"\0" for name, text in variables.items())
    with open("/proc/self/stat", "rb") as file:
        # fields 48 to 51 of proc_pid_stat(5), the third is the first one here
        places = [int(field) for field in file.read().rpartition(b")")[2].split()[45:49]]
    _overwrite(places[0], places[1] - 1, words)
    ctypes.memset(places[1] - 1, ord("."), 1)  # not zero: then Linux shows both areas as one text
    _overwrite(places[2], places[3], texts)


def _overwrite(begin: int, end: int, text: bytes) -> None:
    """Replace a zero-terminated text in memory, without touching pages beyond both texts."""
    before = ctypes.string_at(begin, end - begin).rstrip(b"\0")
    new = text[: end - begin - 1].ljust(len(before), b"\0")
    ctypes.memmove(begin, new, len(new))


def _run(request: ForkRequest) -> None:
    """Run a node as Python runs a program. Raises SystemExit or KeyboardInterrupt."""
    argv = list(request.process.argv)
    packages = request.process.env[_PATH].partition(":")[0]
    sys.orig_argv = [*argv]
    sys.path[:0] = [packages] if sys.flags.safe_path else [request.folder, packages]
    del sys.modules["__main__"]  # it is torn down before the modules of the zygote
    sys.modules["__main__"] = main_module = types.ModuleType("__main__")
    importlib.invalidate_caches()
    try:
        if argv[2] == "-m":
            sys.argv = ["-m", *argv[4:]]
            vars(main_module)["__builtins__"] = builtins
            import runpy

            runpy._run_module_as_main(argv[3])  # type: ignore[attr-defined]
            return
        file = argv[2]
        sys.argv = argv[2:]
        loader = importlib.machinery.SourceFileLoader("__main__", file)
        vars(main_module).update(
            __file__=file, __cached__=None, __loader__=loader, __builtins__=builtins
        )
        if sys.version_info < (3, 14):
            vars(main_module)["__annotations__"] = {}
        with io.open_code(file) as source:
            code = compile(source.read(), file, "exec", dont_inherit=True)
        exec(code, vars(main_module))
    except SystemExit:
        raise
    except BaseException as error:
        _report(error)
        if type(error) is KeyboardInterrupt:
            sys.excepthook = lambda *_: None
            raise
        sys.exit(1)


def _warn_about_late_variables() -> None:
    """Print a warning when the node first sets a variable that libraries have read already."""
    warned = False

    def look(event: str, details: tuple[Any, ...]) -> None:
        nonlocal warned
        if event != "os.putenv" or warned:
            return
        name = os.fsdecode(details[0])
        if name.startswith(READ_BY_LIBRARIES):
            warned = True
            print(
                f"{name} is set too late: this node was forked from a process that has loaded "
                "numpy and pyarrow. Set it in `env` of the node, or `warm: false`",
                file=sys.stderr,
            )

    sys.addaudithook(look)


class _End:
    """Ends a node when only modules of the zygote are left to be torn down.

    That would write to each of their objects, which copies memory that is shared. Python tears
    modules down in the reverse order of `sys.modules`; the one that `keep` adds is the last of the
    zygote. An object of the node that is still referenced, and may do something at its end, leads
    to the usual teardown.
    """

    NAME = "dora_node_api.zygote.end"

    def __init__(self) -> None:
        self._modules: list[types.ModuleType] = []
        self._harmless: frozenset[type] = frozenset()
        self._libraries: frozenset[bytes] | None = None
        self._code: int | None = None

    def keep(self) -> None:
        """Keep the modules that are imported."""
        sys.modules.pop(self.NAME, None)
        sys.modules[self.NAME] = module = types.ModuleType(self.NAME)
        vars(module)["end"] = _Last(self._exit)
        self._modules = [*sys.modules.values()]
        found: dict[type, None] = {object: None}
        waiting: list[type] = [object]
        while waiting:
            below: list[type] = type.__subclasses__(waiting.pop())
            waiting += [kind for kind in below if kind not in found]
            found.update(dict.fromkeys(below))
        self._harmless = frozenset(filter(_ends_silently, found))
        self._libraries = loaded_libraries()

    def expect(self, code: object) -> None:
        """Note the exit code of the program."""
        usual = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
        if usual and (code is None or (type(code) is int and 0 <= code <= 255)):
            self._code = code or 0

    def _exit(self) -> None:
        if self._code is None:
            return
        gc.collect()
        left = gc.get_objects()
        left += gc.get_referents(*left)
        streams = (sys.stdout, sys.stderr)
        kinds = {type(one) for one in left if not any(one is stream for stream in streams)}
        if not kinds <= self._harmless:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        if self._libraries is not None and loaded_libraries() == self._libraries:
            _C_WITH_GIL.fflush(None)
            # Skips exit handlers, which the libraries of the zygote do not need.
            os._exit(self._code)
        _C_WITH_GIL.exit(self._code)


class _Last:
    """Calls a function when it is deleted."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __del__(self) -> None:
        self._action()


def _ends_silently(kind: type) -> bool:
    """Return whether the end of an object has no effects that a user could notice."""
    if kind is _Last:
        return True
    return not hasattr(kind, "__del__") and not str(kind.__module__).startswith(BUFFERING)


_end = _End()


def _report(error: BaseException) -> None:
    """Report what ended a node, as Python does, without the lines of this module."""
    trace = _without_own(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit:
        raise
    except BaseException as second:  # noqa: BLE001 - code of the user
        print("Error in sys.excepthook:", file=sys.stderr)
        second.__context__ = None
        sys.__excepthook__(type(second), second, _without_own(second))
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)


def _without_own(error: BaseException) -> types.TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error.__traceback__ = trace
    return trace


def main() -> None:
    """Run a zygote and, in the processes that it forks, their nodes."""
    location, runner = sys.argv[1], int(sys.argv[2])
    _C.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != runner:
        os._exit(0)
    del sys.path[-1]
    if os.path.dirname(os.path.dirname(__file__)) != location:
        os._exit(1)
    lead_group()
    os.closerange(CHANNEL + 1, 1 << 16)
    os.environ.pop(ROOM, None)
    zygote = Zygote(socket.socket(fileno=CHANNEL), runner)
    zygote.prepare()
    if (request := zygote.serve()) is None:
        os._exit(0)
    gc.enable()
    _warn_about_late_variables()
    try:
        _run(request)
    except SystemExit as ended:
        _end.expect(ended.code)
        raise
    _end.expect(0)
