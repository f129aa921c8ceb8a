"""What a test host is made of: its folder before the first boot, and the script that boots it.

A host is an overlay of this machine's `/` (its writes stay in its own folder), a network namespace
with one address, own pid, mount, uts, ipc and cgroup namespaces, and systemd as its first process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

USER = "ubuntu"
"""Logs in with a key and may use sudo without a password."""
USER_WITHOUT_SUDO = "nosudo"

_FIRST_UID = 2001
_HIDDEN = (
    "etc/systemd/system",
    "etc/systemd/system-generators",
    "etc/systemd/user",
    "usr/lib/systemd/system-generators",
    "usr/local/lib/systemd",
)
"""Folders of a host without the contents that they have on this machine: what is enabled here, has
a script in /etc/init.d or a line in /etc/fstab is not of a host."""
_ENABLED = "ssh.service"
_UNITS_OF_HARDWARE = (
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-random-seed.service",
    "systemd-firstboot.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
)
"""Units of systemd itself that a host without hardware cannot, or need not, run."""

BOOT_SCRIPT = """
set -e
folder=$1 name=$2 cgroup=$3
shift 3
mkdir -p "$cgroup"
echo 0 > "$cgroup/cgroup.procs"
while :; do
    code=0
    unshare --mount --uts --ipc --pid --cgroup --fork --kill-child --propagation private \\
        sh "$folder/../init.sh" "$folder" "$name" "$@" || code=$?
    # 129: killed by SIGHUP, which is what reboot(2) looks like in a pid namespace
    [ $code = 129 ] || exit $code
done
"""

INIT_SCRIPT = """
set -e
folder=$1 name=$2 others=$3
shift 3
root=$folder/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
hide() {
    mkdir -p "$root$1"
    mount -t tmpfs -o mode=755 tmpfs "$root$1"
}
# The overlay has no other file systems and no contents of hidden folders.
show() {
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}
hide /tmp
hide /run
for other; do
    "$others" "$other"
done
chmod 1777 "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
tr -d '\\n' < /proc/sys/kernel/random/uuid > "$root/run/.boot-id"
mount --bind "$root/run/.boot-id" "$root/proc/sys/kernel/random/boot_id"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
hostname "$name"
cd "$root"
mkdir -p .before
pivot_root . .before
umount -l /.before
rmdir /.before
mount --make-rshared /
exec env -i container=dora-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal \\
    </dev/null >/run/.console 2>&1
"""


@dataclass(frozen=True)
class Identity:
    """Name, address and authorized key of a host."""

    name: str
    address: str
    neighbours: dict[str, str]
    """Names and addresses for /etc/hosts."""
    authorized_key: str


def prepare(folder: Path, identity: Identity) -> None:
    """Create ``folder/{upper,work,root}``; ``upper`` has the files of the host's disk."""
    upper = folder / "upper"
    for path in (upper, folder / "work", folder / "root"):
        path.mkdir()
        path.chmod(0o755)
    etc = _folder(upper / "etc")
    (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
    (etc / "hostname").write_text(identity.name + "\n")
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {identity.name}"]
    lines += [f"{address} {name}" for name, address in identity.neighbours.items()]
    (etc / "hosts").write_text("\n".join(lines) + "\n")
    (etc / "resolv.conf").write_text("")
    _users(upper, identity.authorized_key)
    _sshd(_folder(etc / "ssh"))
    for hidden in _HIDDEN:
        os.setxattr(_folder(upper / hidden), "trusted.overlay.opaque", b"y")
    units = etc / "systemd/system"
    wants = _folder(units / "multi-user.target.wants")
    (wants / _ENABLED).symlink_to(f"/usr/lib/systemd/system/{_ENABLED}")
    for unit in _UNITS_OF_HARDWARE:
        (units / unit).symlink_to("/dev/null")


def _folder(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def _users(upper: Path, key: str) -> None:
    users = (USER, USER_WITHOUT_SUDO)
    for name, line in (
        ("passwd", "{user}:x:{uid}:{uid}::/home/{user}:/bin/bash"),
        ("shadow", "{user}:*:20000:0:99999:7:::"),
        ("group", "{user}:x:{uid}:"),
        ("gshadow", "{user}:!::"),
    ):
        shutil.copy2(Path("/etc") / name, upper / "etc" / name)
        with (upper / "etc" / name).open("a") as file:
            for number, user in enumerate(users):
                file.write(line.format(user=user, uid=_FIRST_UID + number) + "\n")
    sudoers = _folder(upper / "etc/sudoers.d")
    (sudoers / "dora-tests").write_text(f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    (sudoers / "dora-tests").chmod(0o440)
    homes = [(upper / "root", 0)]
    homes += [(upper / "home" / user, _FIRST_UID + n) for n, user in enumerate(users)]
    for home, uid in homes:
        # /root can be entered, not listed: it may contain the interpreter of the tests.
        ssh = _folder(_folder(home, 0o755 if uid else 0o711) / ".ssh", 0o700)
        (ssh / "authorized_keys").write_text(key + "\n")
        for path in (home, ssh, ssh / "authorized_keys"):
            shutil.chown(path, uid, uid)


def _sshd(etc_ssh: Path) -> None:
    key = etc_ssh / "ssh_host_ed25519_key"
    make_key(key)
    (_folder(etc_ssh / "sshd_config.d") / "dora-tests.conf").write_text(
        "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\nPasswordAuthentication no\n"
    )


def make_key(path: Path) -> None:
    """Create an ed25519 key pair at ``path``; replace an existing one."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dora-tests", "-f", str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
