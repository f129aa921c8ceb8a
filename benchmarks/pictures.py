"""Measures pictures of a camera from one host to another: raw, compressed, and beside dora-rs.

    python benchmarks/pictures.py [--only 640x480] [--rates 1gbit,20mbit] [--codecs raw,jpeg]
        [--seconds 10] [--links tls] [--json FILE] [--dora-rs [FOLDER]]

The hosts are network namespaces whose cable has a rate (`tc tbf`). A second edge carries small
messages, which wait for the pictures at most as long as the network makes them. Needs root. The
exit code is 1 if something of ours could not be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from measure import systems
from measure.dataflow import BenchNode, MeasurementFailed
from measure.fleet import Fleet, fleet
from measure.hosts import Host
from measure.scenarios import percentile

DORA_RS_FOLDER = Path(__file__).parent / "out" / "dora-rs"
SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
RATES = ("1gbit", "100mbit", "20mbit")
CODECS = ("raw", "jpeg", "h264")
CAMERA_HZ = 30
BURST, LATENCY = "64kb", "50ms"
"""What the network passes at once, and how long it keeps a packet."""
WARM_UP = 1.0


def limit(host: Host, rate: str) -> None:
    """Limit what a host sends."""
    words = ["tc", "-n", host.name, "qdisc", "replace", "dev", "eth0", "root"]
    tbf = ["tbf", "rate", rate, "burst", BURST, "latency", LATENCY]
    subprocess.run([*words, *tbf], check=True)


def sent_bytes(host: Host) -> int:
    """Return the bytes that a host has sent."""
    words = ["ip", "-n", host.name, "-s", "-j", "link", "show", "eth0"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)[0]["stats64"]["tx"]["bytes"])


def measure(made: Fleet, size: str, rate: str, codec: str, seconds: float) -> dict[str, float]:
    """Send pictures and small messages for a while; return what arrived, and how late."""
    for host in made.hosts:
        limit(host, rate)
    width, height = SIZES[size]
    settings: dict[str, str | int | float] = {"SECONDS": seconds + WARM_UP, "RATE": CAMERA_HZ}
    settings |= {"WIDTH": width, "HEIGHT": height}
    camera = BenchNode("camera", "send_pictures.py", {}, ("image",), settings)
    joints = BenchNode("joints", "send_joints.py", {}, ("state",), settings)
    image: dict[str, Any] = {"source": "camera/image", "queue_size": 1}
    if codec != "raw":
        image["compress"] = codec
    state = {"source": "joints/state", "queue_size": 50}
    viewer = BenchNode("viewer", "view_pictures.py", {"image": image, "state": state})
    name = f"{size}-{rate}-{codec}-{time.monotonic_ns()}"
    folder = made.start(name, [(0, camera), (0, joints), (1, viewer)])
    made.wait((folder / "camera.started").exists, "first pictures")
    before, used, begun = sent_bytes(made.hosts[0]), _cpu(made), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    volume, used = sent_bytes(made.hosts[0]) - before, _cpu(made) - used
    found = made.results(folder, ["camera", "viewer"])
    made.stop(name)
    ages = {edge: [ns / 1e6 for ns in all_] for edge, all_ in found["viewer"]["ages_ns"].items()}
    pictures, small = ages.get("image", []), ages.get("state", [])
    if not small or (not pictures and made.system.name == "ours"):
        raise MeasurementFailed(made.system, "nothing arrived", made.log())
    return {
        "Hz": len(pictures) / (seconds + WARM_UP),
        "p50 ms": percentile(pictures, 50) if pictures else math.nan,
        "p99 ms": percentile(pictures, 99) if pictures else math.nan,
        "small p50 ms": percentile(small, 50),
        "small p99 ms": percentile(small, 99),
        "CPU cores": used / took,
        "Mbit/s": 8 * volume / took / 1e6,
    }


def _cpu(made: Fleet) -> float:
    return sum(host.cpu_seconds() for host in made.hosts)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(SIZES), help="sizes of the picture")
    parser.add_argument("--rates", default=",".join(RATES), help="rates of the network")
    parser.add_argument("--codecs", default=",".join(CODECS), help="raw, and values of `compress`")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--links", choices=("tls", "plain"), default="tls", help="of ours")
    parser.add_argument("--json", type=Path, help="write every value into this file")
    parser.add_argument(
        "--dora-rs", type=Path, nargs="?", const=DORA_RS_FOLDER, help="measure it too, from there"
    )
    return parser.parse_args()


def tables(options: argparse.Namespace) -> Iterator[tuple[systems.System, list[str], list[str]]]:
    """Yield each system with its codecs and the options of its daemons."""
    links = ["--links", "plain"] if options.links == "plain" else []
    yield systems.ours(), options.codecs.split(","), links
    if options.dora_rs is not None:
        yield systems.dora_rs(options.dora_rs)[0], ["raw"], []


def main() -> int:
    options = arguments()
    # An early end must not leave daemons and namespaces behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[dict[str, Any]] = []
    failed = False
    for system, codecs, links in tables(options):
        with fleet(system, daemon_options=tuple(links)) as made:
            for size in options.only.split(","):
                for rate in options.rates.split(","):
                    for codec in codecs:
                        about = {"system": system.name, "size": size, "rate": rate, "codec": codec}
                        try:
                            found = measure(made, size, rate, codec, options.seconds)
                        except (MeasurementFailed, subprocess.SubprocessError) as error:
                            print(f"could not be measured: {about}: {error}", file=sys.stderr)
                            failed = failed or system.name == "ours"
                            continue
                        rows.append(about | found)
                        shown = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
                        print(f"{system.name}: {size} {rate} {codec}: {shown}", flush=True)
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
