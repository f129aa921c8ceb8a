"""Wait for messages: poll briefly if they come fast, then sleep. Does not decide their order."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from dora_node_api.transport.consumer.poll_policy import PollPolicy
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared.fork_guard import ForkAware, forked_error
from dora_node_api.transport.shared.limits import usable_cores

_FEW_INPUTS = 8  # with up to 8 inputs, reading their counters is cheaper than a system call
_LOOK_AT_FDS_NS = 1_000_000
"""Interval at which a node with messages looks at its other descriptors."""
_EPOLL_MARGIN_NS = 2_000_000  # epoll rounds timeouts up to milliseconds; select does not
_MAX_EPOLL_NS = 10**15  # epoll timeouts are limited to 25 days
_SELECT_FDS = 1024  # select takes descriptors below
_POLLIN = select.POLLIN
_monotonic_ns = time.monotonic_ns


class Waiter(ForkAware):
    """Waits for any of many inputs and descriptors. One thread at a time."""

    def __init__(self, *, polls: bool = True) -> None:
        """``polls``: whether it may poll. That keeps the GIL, so other threads would wait."""
        super().__init__()
        self._receivers: list[Receiver] = []
        self._by_fd: dict[int, Receiver | int] = {}
        self._others = 0
        self._remote = False
        """Whether messages of an input come from another machine."""
        # On one core, polling would keep the sender from running.
        self.policy = PollPolicy() if polls and usable_cores() >= 2 else None
        self.looked_at_fds = 0
        """CLOCK_MONOTONIC ns of the last look at every descriptor."""
        self._slept_from = 0
        """Start of the last sleep; 0 once the policy was notified of it."""
        self._epoll = select.epoll()

    def add(self, receiver: Receiver) -> None:
        """Watch an input; one that is watched already stays so."""
        if receiver not in self._receivers:
            self._receivers.append(receiver)
            self._find_remote()
            for fd in receiver.fds():
                self._by_fd[fd] = receiver
                self._epoll.register(fd, select.POLLIN)

    def remove(self, receiver: Receiver) -> None:
        """Stop watching an input, if it is watched; call it before the receiver is closed."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)
            self._find_remote()
        for fd in [fd for fd, watched in self._by_fd.items() if watched is receiver]:
            self._forget(fd)

    def _find_remote(self) -> None:
        self._remote = any(receiver.spec.remote for receiver in self._receivers)

    def add_fd(self, fd: int) -> None:
        """Watch a descriptor, such as the control socket, for being readable."""
        self._by_fd[fd] = fd
        self._epoll.register(fd, select.POLLIN)
        self._others += 1

    def remove_fd(self, fd: int) -> None:
        """Stop watching a descriptor; one that is not watched is ignored."""
        if self._by_fd.get(fd) == fd:
            self._others -= 1
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        if fd in self._by_fd:
            with suppress(FileNotFoundError, KeyError):
                self._epoll.unregister(fd)
            del self._by_fd[fd]

    def wait(self, timeout: float | None = None, *, answer: bool = False) -> list[Receiver | int]:
        """Return the receivers and descriptors that are ready; none after ``timeout`` seconds.

        None waits without limit, 0 only looks. ``answer``: messages were sent since the last wait,
        so the next one may be an answer. Exact to some microseconds, in a process with more
        than a thousand descriptors to a millisecond. An input listed may
        still be empty (its producer made room); one not listed may have become ready since. Signal
        handlers run, and their exceptions pass through. Raises NodeForked.
        """
        if self.forked:
            raise forked_error()
        start = _monotonic_ns()
        policy = self.policy
        if policy is not None:
            if self._slept_from:
                policy.slept(self.looked_at_fds - self._slept_from)
                self._slept_from = 0
            policy.answer = answer and self._remote
        few = len(self._receivers) <= _FEW_INPUTS
        if few:
            ready = self._look(start)
            if ready:
                return ready
        else:
            ready = self._held()
            if ready or (ready := self._look_at_fds(0)):
                return ready
        if timeout is not None and timeout <= 0:
            return self._look_at_fds(0)
        if policy is not None and policy.credit and few:
            ready = self._poll(start, policy.poll_ns(), timeout)
            policy.polled(found=bool(ready))
            return ready or self._sleep(start, timeout)
        ready = self.sleep() if timeout is None else self._sleep(start, timeout)
        self._slept_from = start if ready else 0
        return ready

    def sleep(self) -> list[Receiver | int]:
        """Sleep until something is ready, as `wait` without a look at the inputs' counters.

        Call it when the last `receive` of every input returned None.
        """
        while not (ready := self._look_at_fds(-1)):
            pass
        return ready

    def _look(self, now: int) -> list[Receiver | int]:
        """Inputs whose counters show a message; the other descriptors only now and then."""
        ready: list[Receiver | int] = [r for r in self._receivers if r.ready()]
        if ready and self._others and now - self.looked_at_fds > _LOOK_AT_FDS_NS:
            ready += [found for found in self._look_at_fds(0) if found not in ready]
        return ready

    def _held(self) -> list[Receiver | int]:
        return [receiver for receiver in self._receivers if receiver.holds_record]

    def _poll(self, start: int, max_ns: int, timeout: float | None) -> list[Receiver | int]:
        end = start + max_ns
        if timeout is not None:
            end = min(end, start + int(timeout * 1e9))
        receivers = self._receivers
        give_way = os.sched_yield
        now = start
        while True:
            for receiver in receivers:
                if receiver.ready():
                    return [receiver]
            if now >= end:
                return []
            give_way()
            now = _monotonic_ns()

    def _sleep(self, start: int, timeout: float | None) -> list[Receiver | int]:
        if timeout is None:
            return self.sleep()
        end = start + int(timeout * 1e9)
        while True:
            left = end - _monotonic_ns()
            if left <= 0:
                return self._look_at_fds(0)
            fd = self._epoll.fileno()
            if left > _EPOLL_MARGIN_NS:
                ready = self._look_at_fds((min(left, _MAX_EPOLL_NS) - _EPOLL_MARGIN_NS) / 1e9)
            elif fd >= _SELECT_FDS:
                ready = self._look_at_fds(left / 1e9)
            else:
                select.select((fd,), (), (), left / 1e9)
                ready = self._look_at_fds(0)
            if ready:
                return ready

    def _look_at_fds(self, timeout: float) -> list[Receiver | int]:
        ready: list[Receiver | int] = []
        by_fd = self._by_fd
        events_by_fd = self._epoll.poll(timeout)
        self.looked_at_fds = _monotonic_ns()
        for fd, events in events_by_fd:
            found = by_fd.get(fd)
            if found is None:
                continue
            if isinstance(found, Receiver):
                if not events & _POLLIN:
                    # All other ends are closed and the pipe is empty: it would always be ready.
                    self._forget(fd)
                    continue
                found.woken()
            if not ready or found not in ready:
                ready.append(found)
        return ready

    def fileno(self) -> int:
        """Return a descriptor that is readable while anything is ready, for `add_reader`.

        Before sleeping on it, call `wait(0)`: a receiver may hold a record.
        """
        return self._epoll.fileno()

    def close(self) -> None:
        """Stop watching everything."""
        if not self.forked:
            self._receivers = []
            self._by_fd = {}
            self._epoll.close()
