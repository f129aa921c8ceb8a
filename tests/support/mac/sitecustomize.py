"""Makes a Python on Linux look like one on macOS; imported at its start from PYTHONPATH.

Removes what typeshed declares for Linux only, hides the files of Linux, and limits open files. What
macOS has and Linux lacks is not imitated.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import resource
import select
import selectors
import signal
import socket
import sys
import sysconfig
import time
import urllib.request  # noqa: F401  # imports a module of macOS by the platform
from types import ModuleType
from typing import Any

import psutil  # noqa: F401  # chooses its implementation by the platform

LINUX_ONLY: dict[ModuleType, str] = {
    os: "(EFD|GRND|MFD|POSIX_FADV|RWF|SPLICE_F|XATTR)_.*|O_(DIRECT|LARGEFILE|NOATIME|PATH|RSYNC|"
    "TMPFILE)|P_PIDFD|RTLD_DEEPBIND|SCHED_(BATCH|IDLE|RESET_ON_FORK)|ST_(APPEND|MANDLOCK|NOATIME|"
    "NODEV|NODIRATIME|NOEXEC|RELATIME|SYNCHRONOUS|WRITE)|copy_file_range|eventfd.*|fdatasync|"
    "getrandom|[gs]etres[gu]id|(get|list|remove|set)xattr|memfd_create|pidfd_open|pipe2|"
    "posix_fadvise|posix_fallocate|sched_[gs]et(affinity|param|scheduler)|sched_rr_.*|setns|"
    "splice|unshare|waitid.*",
    signal: "SIG(CLD|POLL|PWR|RTMAX|RTMIN|STKFLT)|pidfd_.*|sig(timedwait|waitinfo)|struct_siginfo",
    socket: "AF_(ALG|CAN|NETLINK|PACKET|QIPCRTR|RDS|TIPC|VSOCK)|(ALG|CAN|J1939|NETLINK|PACKET|TIPC|"
    "VM_SOCKETS|VMADDR)_.*|IPPROTO_(MPTCP|UDPLITE)|MSG_(CMSG_CLOEXEC|CONFIRM|ERRQUEUE|FASTOPEN|"
    "MORE)|SCM_(CREDENTIALS|J1939.*)|SOCK_(CLOEXEC|NONBLOCK)|SO_(BINDTODEVICE|DOMAIN|INCOMING_CPU|"
    "MARK|PASSCRED|PASSSEC|PEERCRED|PEERSEC|PRIORITY|PROTOCOL)|TCP_(CONGESTION|CORK|DEFER_ACCEPT|"
    "INFO|KEEPIDLE|LINGER2|QUICKACK|SYNCNT|USER_TIMEOUT|WINDOW_CLAMP)",
    select: "EPOLL.*|epoll|POLLMSG|POLLRDHUP",
    selectors: "EpollSelector",
    fcntl: "DN_.*|F_(ADD_SEALS|.*PIPE_SZ|GET_SEALS|[GS]ETSIG|NOTIFY|OFD_.*|SEAL_.*|.*LKW?64|"
    "(EX|SH)LCK)|LOCK_(MAND|READ|RW|WRITE)",
    resource: "RLIMIT_(MSGQUEUE|NICE|OFILE|RTPRIO|RTTIME|SIGPENDING)|RUSAGE_THREAD|prlimit",
    time: "CLOCK_(BOOTTIME|TAI)|pthread_getcpuclockid",
    mmap: "MADV_(DO(DUMP|FORK)|DONT(DUMP|FORK)|(NO)?HUGEPAGE|HWPOISON|(UN)?MERGEABLE|REMOVE)|"
    "MAP_(DENYWRITE|EXECUTABLE|POPULATE|STACK)",
}
"""Names as regular expressions, by module."""
FUNCTIONS_OF_LIBC = ("prctl", "syncfs", "syscall")
FILES_OF_LINUX = ("/proc/", "/sys/", "/dev/shm/", "/run/", "/etc/machine-id/", "/etc/os-release/")
OPEN_MAX = 10240
"""Highest limit of open files that setrlimit(2) accepts."""


def _hide(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse functions of libc and files of Linux; the hook of auditing."""
    if event == "ctypes.dlsym" and arguments[1] in FUNCTIONS_OF_LIBC:
        raise AttributeError(f"symbol not found: {arguments[1]}")
    if event in ("open", "os.listdir", "os.scandir"):
        _require_file_of_mac(arguments[0])


def _require_file_of_mac(path: Any) -> None:
    """Raise FileNotFoundError for a file of Linux, except to psutil, which knows both systems."""
    if isinstance(path, int) or not f"{os.fsdecode(path or '.')}/".startswith(FILES_OF_LINUX):
        return
    if not any("/psutil/" in name for name in _files_of_callers()):
        raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))


def _files_of_callers() -> list[str]:
    files, frame = [], sys._getframe(1)
    while frame.f_back is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    return files


def _become_mac() -> None:
    stat, setrlimit, idle = os.stat, resource.setrlimit, socket.TCP_KEEPIDLE

    def stat_of_mac(path: Any, **options: Any) -> os.stat_result:
        _require_file_of_mac(path)
        return stat(path, **options)

    def setrlimit_of_mac(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_NOFILE and not 0 <= limits[0] <= OPEN_MAX:
            raise ValueError("current limit exceeds maximum limit")
        setrlimit(kind, limits)

    sysconfig.get_config_vars()  # reads a module whose name contains the platform
    for module, names in LINUX_ONLY.items():
        for name in [name for name in vars(module) if re.fullmatch(names, name)]:
            delattr(module, name)
    vars(socket)["TCP_KEEPALIVE"] = idle  # its name on macOS
    vars(selectors)["DefaultSelector"] = selectors.PollSelector
    vars(os)["stat"] = stat_of_mac
    vars(resource)["setrlimit"] = setrlimit_of_mac
    sys.platform = "darwin"
    sys.addaudithook(_hide)


_become_mac()
