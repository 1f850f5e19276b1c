"""What happens to a robot's node in its life, each with what must hold; measured from outside, over DDS."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from soak_bad_input import LARGEST, bad_message, black_image, good_image
from soak_node import NodeProcess, shared_memory_files
from soak_robot import NODE, Robot
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose
from nre_ros.mapping.map_file import FILE_NAME
from nre_ros.recordings.camera_info import info_fields
from nre_ros.ros.conversions import header, stamp_from_ns, transform_stamped

RECOVERY_S = 2.0
BURST = 10
"""Bad messages between two tries with good input."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    expected: str
    ok: bool


Scenario = Callable[[Robot, NodeProcess], list[Row]]


def recovery(what: str, seconds: float, limit_s: float = RECOVERY_S) -> Row:
    return Row(what, f"{seconds:.2f} s", f"right pose within {limit_s:g} s of good input", seconds <= limit_s)


def honesty(robot: Robot, what: str) -> Row:
    """Of everything heard so far."""
    said = f"{len(robot.wrong)} wrong of {len(robot.heard)} poses, {len(robot.faults)} bad covariances and transforms"
    said += f", such as: {robot.faults[0]}" if robot.faults else ""
    return Row(f"{what}: poses", said, "none wrong", not robot.wrong and not robot.faults)


def transform_again(robot: Robot, limit_s: float = 10.0) -> Row:
    """With good input the node has nothing to complain of any more: odometry is found, map -> odom follows."""
    deadline, text, well = time.monotonic() + limit_s, "nothing said", False
    robot.ros.diagnostics.clear()
    while not well and time.monotonic() < deadline:
        robot.stream(0.5, 15.0)
        for status in robot.ros.diagnostics[-1:]:
            text, well = status.message, status.level == DiagnosticStatus.OK
    return Row("afterwards", text, f"diagnostics OK within {limit_s:g} s", well)


def fuzz(robot: Robot, node: NodeProcess, seed: int, numbers: range, limit_s: float = RECOVERY_S) -> list[Row]:
    """Bad messages in bursts, good input between them; a node that dies is told with what came last.

    Megabytes of large images come and go with what is being received, so the least that is held between them is
    compared, in the second and in the last quarter. The largest come first, as the allocator keeps what they took.
    """
    for _ in range(BURST):
        robot.publishers["image"].publish(black_image(*LARGEST, robot.now_ns()))
        robot.rest(0.1)
    kinds: Counter[str] = Counter()
    bursts, times, memory = [], [], []
    for start in range(numbers.start, numbers.stop, BURST):
        burst = []
        for number in range(start, min(start + BURST, numbers.stop)):
            bad = bad_message(seed, number, robot.frame, robot.now_ns())
            burst.append(bad.what.partition(" with ")[0])
            robot.send_bad(bad)
            robot.rest(0.02)
        kinds.update(burst)
        bursts.append(burst)
        times.append(robot.recover(10 * limit_s))
        memory.append(node.memory_mb() if node.alive else 0.0)
        if not node.alive or times[-1] > 10 * limit_s or robot.wrong:
            break
    done = sum(kinds.values())
    where = "" if done == len(numbers) else f", stopped in messages {start} to {start + BURST - 1} of seed {seed}"
    quarter = max(len(memory) // 4, 1)
    growth = min(memory[-quarter:]) - min(memory[quarter : 2 * quarter] or memory)
    p50, worst = np.median(times), max(times)
    slowest = "" if worst <= limit_s else f" after {', '.join(bursts[times.index(worst)])}"
    rows = [transform_again(robot)] if node.alive else []
    return [
        Row("fuzz: node", f"{'alive' if node.alive else 'dead'} after {done} messages{where}", "alive", node.alive),
        Row("fuzz: recovery", f"p50 {p50:.2f} s, worst {worst:.2f} s{slowest}", f"{limit_s:g} s", worst <= limit_s),
        Row(
            "fuzz: memory",
            f"{growth:+.1f} MB from the second quarter to the last, {min(memory):.0f} to {max(memory):.0f} MB",
            "under 20 MB from the second quarter to the last",
            growth < 20,
        ),
        honesty(robot, "fuzz"),
        *rows,
        Row("fuzz: kinds sent", ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())), "", True),
    ]


def drops(robot: Robot, node: NodeProcess) -> list[Row]:
    """Half of the images are lost on the way."""
    rng, before = np.random.default_rng(0), len(robot.heard)
    for _ in range(90):
        robot.step(image=bool(rng.random() < 0.5))
        robot.rest(1 / 30)
    count = len(robot.heard) - before
    return [Row("half of the images lost: poses in 3 s", str(count), "some", count > 5)]


def bursts(robot: Robot, node: NodeProcess) -> list[Row]:
    """Twice the usual rate: the newest image is answered, the others are dropped, nothing queues up."""
    latencies = robot.latencies_s(robot.stream(5.0, 60.0))
    p50, p95 = (1e3 * np.percentile(latencies, q) if latencies else np.inf for q in (50, 95))
    text = f"{len(latencies)} of 300 answered, image to pose p50 {p50:.0f} ms, p95 {p95:.0f} ms"
    return [Row("60 Hz for 5 s", text, "p95 under 1 s", p95 < 1000)]


def bag_loops(robot: Robot, node: NodeProcess) -> list[Row]:
    """Stamps of an old bag, whose time begins anew with each loop."""
    times = []
    for _ in range(3):
        start_ns = 1_600_000_000 * 10**9
        before = len(robot.heard)
        started_s = time.monotonic()
        answered_s = np.inf
        for i in range(60):
            robot.step(stamp_ns=start_ns + i * 33_000_000)
            robot.rest(1 / 30)
            if np.isinf(answered_s) and len(robot.heard) > before + 1:
                answered_s = time.monotonic() - started_s
        times.append(answered_s)
    return [recovery("bag loops, the slowest of 3", max(times)), recovery("back to the present", robot.recover(20.0))]


def clock_jumps(robot: Robot, node: NodeProcess) -> list[Row]:
    """With use_sim_time, /clock goes back an hour and on again."""
    _set(robot, "use_sim_time", ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True))
    clock = robot.ros.publisher(Clock, "/clock")
    times = []
    for start_ns in (5_000 * 10**9, 1_400 * 10**9, 90_000 * 10**9):
        started_s, before, answered_s = time.monotonic(), len(robot.heard), np.inf
        for i in range(90):
            stamp_ns = start_ns + i * 33_000_000
            clock.publish(Clock(clock=stamp_from_ns(stamp_ns)))
            robot.step(stamp_ns=stamp_ns)
            robot.rest(1 / 30)
            if np.isinf(answered_s) and len(robot.heard) > before + 1:
                answered_s = time.monotonic() - started_s
        times.append(answered_s)
    _set(robot, "use_sim_time", ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False))
    robot.ros.node.destroy_publisher(clock)
    return [recovery("clock jumps, the slowest of 3", max(times)), recovery("back to real time", robot.recover(20.0))]


def transform_from_the_future(robot: Robot, node: NodeProcess) -> list[Row]:
    """One odometry sample is stamped an hour ahead, as by a machine whose clock is set; the next ones are right."""
    stamp_ns = robot.now_ns() + 3600 * 10**9
    message = TFMessage(transforms=[transform_stamped("odom", "base_link", Pose.identity(), stamp_ns)])
    robot.publishers["/tf"].publish(message)
    row = transform_again(robot)
    return [replace(row, what="odometry stamped an hour ahead")]


def unplugged(robot: Robot, node: NodeProcess) -> list[Row]:
    """The camera's driver goes away for as long as it takes the node to complain, and comes back."""
    topics = {"image": Image, "camera_info": CameraInfo}
    for topic in topics:
        robot.ros.node.destroy_publisher(robot.publishers[topic])
    robot.ros.diagnostics.clear()
    said = robot.ros.told("no images").message
    for topic, kind in topics.items():
        robot.publishers[topic] = robot.ros.publisher(kind, topic)
    return [Row("camera unplugged", said, "named", True), recovery("camera back", robot.recover(20.0))]


def recalibrated(robot: Robot, node: NodeProcess) -> list[Row]:
    """A calibration of another size, then images of another size with theirs, then as before."""
    other = robot.frame.camera.resized(robot.frame.camera.width * 3, robot.frame.camera.height * 3)
    robot.ros.diagnostics.clear()
    deadline, said = time.monotonic() + 10, []
    while not said and time.monotonic() < deadline:
        stamp_ns = robot.step(image=False)
        robot.publishers["camera_info"].publish(CameraInfo(header=header("cam", stamp_ns), **info_fields(other)))
        robot.rest(0.02)
        robot.publishers["image"].publish(good_image(robot.frame, stamp_from_ns(stamp_ns)))
        robot.rest(0.1)
        said = [s.message for s in robot.ros.diagnostics if "calibration is for" in s.message]
    text = said[0] if said else "nothing said"
    return [
        Row("calibration of another size", text, "named with both sizes", bool(said)),
        recovery("images of half the size, with their calibration", robot.recover(20.0, scale_down=2)),
        recovery("the first calibration again", robot.recover(20.0)),
    ]


def map_lost(robot: Robot, node: NodeProcess, map_path: Path) -> list[Row]:
    """Under the running node the map's file is replaced by rubbish, deleted, overwritten in place, and restored."""
    file, spare = map_path / FILE_NAME, map_path.with_name("spare")
    shutil.copy(file, spare)
    rows = []
    try:
        rubbish = file.with_suffix(".new")
        rubbish.write_bytes(b"rubbish" * 1000)
        rubbish.replace(file)
        rows.append(recovery("map replaced by rubbish: poses go on", robot.recover(20.0)))
        rows += _load(robot, "load_map of rubbish", works=False)
        file.unlink()
        rows.append(recovery("map deleted: poses go on", robot.recover(20.0)))
        rows += _load(robot, "load_map of nothing", works=False)
        shutil.copy(spare, rubbish)
        rubbish.replace(file)
        rows += _load(robot, "load_map of the map again", works=True)
        rows.append(recovery("after load_map", robot.recover(20.0)))
        robot.ros.diagnostics.clear()
        file.write_bytes(b"rubbish")
        stamps = robot.stream(2.0, 15.0)
        said = [s.message for s in robot.ros.diagnostics if "overwritten" in s.message]
        told = said[-1] if said else f"{len(robot.latencies_s(stamps))} poses, nothing said"
        rows.append(Row("map overwritten in place", told, "alive, and named", node.alive and bool(said)))
        shutil.copy(spare, rubbish)
        rubbish.replace(file)
        if node.alive:
            rows += _load(robot, "load_map of the map again", works=True)
            rows.append(recovery("after load_map", robot.recover(20.0)))
    finally:
        shutil.copy(spare, map_path / "restored")
        (map_path / "restored").replace(file)
    return rows


def idle(robot: Robot, node: NodeProcess, seconds: float = 10.0) -> list[Row]:
    """Nothing comes in."""
    robot.rest(1.0)
    before_s = node.cpu_s()
    robot.rest(seconds)
    share = (node.cpu_s() - before_s) / seconds
    return [Row(f"idle for {seconds:g} s", f"{100 * share:.1f} % of a core", "under 5 %", share < 0.05)]


def long_replay(robot: Robot, node: NodeProcess, minutes: float) -> list[Row]:
    """Images at 30 Hz; memory and latency from the first tenth on."""
    robot.stream(max(6.0, 6 * minutes), 30.0)
    memory, latencies = [node.memory_mb()], []
    images, started_s, cpu_s = 0, time.monotonic(), node.cpu_s()
    while (passed_s := time.monotonic() - started_s) < 60 * minutes and node.alive:
        stamps = robot.stream(min(10.0, 60 * minutes), 30.0)
        images += len(stamps)
        latencies += robot.latencies_s(stamps)
        memory.append(node.memory_mb())
        del robot.heard[:-1000]
    growth = max(memory[len(memory) // 2 :]) - memory[0]
    p50, p95, worst = (1e3 * np.percentile(latencies, q) if latencies else np.inf for q in (50, 95, 100))
    text = f"{len(latencies)} poses of {images} images, p50 {p50:.0f} ms, p95 {p95:.0f} ms, worst {worst:.0f} ms"
    cpu = (node.cpu_s() - cpu_s) / passed_s
    return [
        Row(f"{minutes:g} min at 30 Hz: latency", text, "p95 under 1 s", p95 < 1000),
        Row(f"{minutes:g} min at 30 Hz: memory", f"{growth:+.1f} MB", "under 20 MB", growth < 20),
        Row(f"{minutes:g} min at 30 Hz: CPU", f"{cpu:.2f} cores", "", True),
        honesty(robot, f"{minutes:g} min at 30 Hz"),
    ]


def ends(robot: Robot, start: Callable[[], NodeProcess]) -> list[Row]:
    """SIGINT, SIGTERM and SIGKILL under load, each followed by a new start that works."""
    rows = []
    for number, expected in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        with start() as node:
            robot.meet(node)
            files = shared_memory_files()
            first_s = robot.recover(30.0)
            robot.stream(0.5, 30.0)
            code, took_s = node.end(number, 20.0)
            left = node.leftovers()
        text = f"exit code {code} after {took_s:.2f} s, {len(left)} processes left, "
        text += f"{shared_memory_files() - files:+d} files in /dev/shm; started anew, first pose after {first_s:.2f} s"
        good = code == expected and not left and took_s < 10 and np.isfinite(first_s)
        rows.append(Row(signal.Signals(number).name, text, f"exit code {expected}, nothing left, clean start", good))
    return rows


def _load(robot: Robot, what: str, *, works: bool) -> list[Row]:
    answer = robot.ros.call(Trigger, f"{NODE}/load_map", Trigger.Request())
    expected = "success" if works else "refused with the reason, the old map stays"
    return [Row(what, answer.message, expected, answer.success == works and bool(answer.message))]


def _set(robot: Robot, name: str, value: ParameterValue) -> None:
    request = SetParameters.Request(parameters=[ParameterMessage(name=name, value=value)])
    results = robot.ros.call(SetParameters, f"{NODE}/set_parameters", request).results
    assert results[0].successful, results[0].reason
