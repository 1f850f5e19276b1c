"""What the doctor asks of the machine and the environment, without importing anything heavy."""

from __future__ import annotations

import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from nre_ros.cli.findings import Finding
from nre_ros.errors import ConfigError
from nre_ros.share import share_folder

OLDEST, NEWEST = (3, 10), (3, 13)
FAST_DDS = "rmw_fastrtps_cpp"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS reads either; the first is the newer name."""
SEGMENT_MB = 64
"""Shared memory that a participant takes by our profile."""
ROOM_MB = 4 * SEGMENT_MB
LEAST_SEGMENT_MB = 4
"""Room for some images; Fast DDS's own 0.5 MB has none for one."""
LEAST_DISK_GB = 1.0
LAST_SAFE_DOMAIN, LAST_DOMAIN = 101, 232
"""Linux gives away the ports of the higher ones to any program."""
LEAST_RECEIVE_MB = 2
MB = 2**20


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    text = ".".join(map(str, version))
    if not OLDEST <= version[:2] <= NEWEST:
        return Finding("fail", "python", f"{text}, expected 3.10 to 3.13", "use the Python of your ROS 2 distribution")
    return Finding("ok", "python", f"{text} ({sys.executable})")


def disk(folder: str) -> Finding:
    """Room where maps are written."""
    here = Path(folder).resolve()
    while not here.exists():
        here = here.parent
    free_gb = shutil.disk_usage(here).free / 1e9
    text = f"{free_gb:.1f} GB free at {here}"
    if free_gb < LEAST_DISK_GB:
        return Finding("warn", "disk", text, "maps and recordings take gigabytes: make room before you build one")
    return Finding("ok", "disk", text)


def domain(environment: Mapping[str, str]) -> Finding:
    text = environment.get("ROS_DOMAIN_ID") or "0"
    if not text.isdigit() or int(text) > LAST_DOMAIN:
        return Finding("fail", "ROS_DOMAIN_ID", f"{text!r} is none", f"set a number from 0 to {LAST_SAFE_DOMAIN}")
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        reach = "LOCALHOST"
    told = f"{text}, discovery range {reach}"
    if int(text) > LAST_SAFE_DOMAIN:
        advice = f"take one up to {LAST_SAFE_DOMAIN}: ports of higher ones are given to other programs"
        return Finding("warn", "ROS_DOMAIN_ID", told, advice)
    return Finding("ok", "ROS_DOMAIN_ID", told)


def middleware(environment: Mapping[str, str]) -> list[Finding]:
    """Room for images on their way."""
    name = environment.get("RMW_IMPLEMENTATION") or FAST_DDS
    if name != FAST_DDS:
        return [Finding("ok", "middleware", f"{name}: the Fast DDS profile has no effect on it"), receive_buffer()]
    chosen = "RMW_IMPLEMENTATION" if environment.get("RMW_IMPLEMENTATION") else "the default"
    return [
        Finding("ok", "middleware", f"{name} ({chosen})"),
        fast_dds_profile(environment),
        shared_memory(),
        receive_buffer(),
    ]


def fast_dds_profile(environment: Mapping[str, str]) -> Finding:
    """By default images are lost: see config/fastdds_large_images.xml."""
    subject = "Fast DDS"
    if environment.get("FASTDDS_BUILTIN_TRANSPORTS", "").startswith("LARGE_DATA"):
        return Finding("ok", subject, f"FASTDDS_BUILTIN_TRANSPORTS={environment['FASTDDS_BUILTIN_TRANSPORTS']}")
    named = [(name, environment[name]) for name in PROFILE_VARIABLES if environment.get(name)]
    use_ours = f"export {PROFILE_VARIABLES[1]}={_our_profile()} in every process that sends or receives images"
    if not named:
        advice = f"{use_ours}; our launch files do, the camera driver needs it too"
        return Finding("warn", subject, "no profile is set: large images are lost between processes", advice)
    variable, path = named[0]
    try:
        sizes = _segment_sizes_mb(path)
    except (OSError, ET.ParseError, ValueError) as error:
        return Finding("fail", subject, f"{variable}={path} cannot be read ({error}): Fast DDS ignores it", use_ours)
    if not sizes or max(sizes) < LEAST_SEGMENT_MB:
        text = f"{path} gives shared memory {max(sizes):.1f} MB" if sizes else f"{path} sets no size of shared memory"
        return Finding("warn", subject, f"{text}: less than an image may need", use_ours)
    return Finding("ok", subject, f"{path}, {max(sizes):.0f} MB shared memory a participant")


def shared_memory(path: str = "/dev/shm") -> Finding:
    subject = "shared memory"
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        return Finding("fail", subject, f"{path} is not there ({error.strerror})", f"mount a tmpfs at {path}")
    text = f"{usage.free / MB:.0f} of {usage.total / MB:.0f} MB free in {path}"
    if usage.free >= ROOM_MB * MB:
        return Finding("ok", subject, text)
    small = usage.total < ROOM_MB * MB
    more = (
        "in Docker: docker run --shm-size=1g (its default is 64 MB)"
        if small
        else "see what fills it; fastdds shm clean"
    )
    level = "fail" if usage.free < SEGMENT_MB * MB else "warn"
    return Finding(level, subject, f"{text}, a participant takes {SEGMENT_MB} MB", more)


def receive_buffer(path: str = "/proc/sys/net/core/rmem_max") -> Finding:
    """For cameras on other machines: over UDP an image is many packets that come at once."""
    subject = "UDP buffer"
    try:
        size = int(Path(path).read_text())
    except (OSError, ValueError):
        return Finding("ok", subject, f"{path} is not readable here; it matters for cameras on other machines only")
    text = f"net.core.rmem_max is {size / MB:.1f} MB"
    if size < LEAST_RECEIVE_MB * MB:
        advice = "if the camera is on another machine: sudo sysctl -w net.core.rmem_max=16777216, here and there"
        return Finding("warn", subject, f"{text}: images from other machines get lost", advice)
    return Finding("ok", subject, text)


def _segment_sizes_mb(path: str) -> list[float]:
    """Of every shared-memory transport in a profile."""
    sizes = []
    for transport in ET.parse(os.path.expanduser(path)).iter():
        parts = {child.tag.rpartition("}")[2]: child.text or "" for child in transport}
        if parts.get("type", "").strip() == "SHM" and "segment_size" in parts:
            sizes.append(int(parts["segment_size"]) / MB)
    return sizes


def _our_profile() -> str:
    try:
        return str(share_folder() / "config" / "fastdds_large_images.xml")
    except ConfigError:
        return "config/fastdds_large_images.xml"
