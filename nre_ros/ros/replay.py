"""Replay a rosbag2 to a running node and record its answers: ``python -m nre_ros.ros.replay BAG --record OUT.json``.

What ``ros2 bag play`` does, where it is not installed; and with ``--pace answer`` every image is waited for, so that
the result does not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from tf2_msgs.msg import TFMessage

from nre_ros.errors import NreError, RecordingError
from nre_ros.ros.replay_record import ReplayRecord
from nre_ros.ros.replay_source import Pacer, ReplaySource

ANSWER_TIMEOUT_S = 30.0
QUIET_S = 3.0


def replay(node: Node, options: argparse.Namespace) -> ReplayRecord:
    """Publish the bag while something else spins ``node``; returns what was answered.

    Raises RecordingError for a bag that cannot be read, and when nobody listens.
    """
    source = ReplaySource(node, Path(options.bag), options.topics, _remaps(options.remap))
    for topic in source.skipped:
        node.get_logger().warning(f"{topic} is not replayed: its message type is not installed")
    record = ReplayRecord(node, options.pose_topic)
    source.wait_for_subscribers(options.wait_for, also=record.is_connected)
    pacer = Pacer(node, options.rate, options.clock)
    asked_ns: int | None = None
    for stored in source.messages():
        if options.pace == "stamps":
            pacer.wait_until(stored.logged_ns)
        else:
            pacer.tell(stored.logged_ns)
        if stored.stamp_ns is not None and stored.stamp_ns != asked_ns:
            if options.pace == "answer" and asked_ns is not None:
                record.wait_for_answer(asked_ns, ANSWER_TIMEOUT_S)
            asked_ns = stored.stamp_ns
            record.note_image(asked_ns)
        if stored.topic == "/tf":
            record.note_own_transforms(deserialize_message(stored.raw, TFMessage))
        source.publish(stored)
    record.wait_for_stragglers(QUIET_S)
    return record


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m nre_ros.ros.replay", description=(__doc__ or "").split("\n")[0])
    p.add_argument("bag", help="rosbag2 folder, or a single mcap or db3 file")
    p.add_argument("--record", metavar="OUT.json", help="write the answers there")
    p.add_argument("--rate", type=float, default=1.0, help="speed, with --pace stamps (default 1)")
    p.add_argument(
        "--pace",
        choices=("stamps", "answer"),
        default="stamps",
        help="as recorded, or each image as soon as the one before is answered (default stamps)",
    )
    p.add_argument("--topics", nargs="+", default=[], help="replay these alone")
    p.add_argument("--remap", nargs="+", default=[], metavar="FROM:=TO", help="publish under other names")
    p.add_argument("--pose-topic", default="/nre_localizer/pose", help="where the node answers (default %(default)s)")
    p.add_argument("--wait-for", type=float, default=30.0, metavar="S", help="longest wait for the node (default 30)")
    p.add_argument("--clock", action="store_true", help="publish /clock, for nodes with use_sim_time")
    return p


def main(args: list[str] | None = None) -> int:
    options = parser().parse_args(args)
    rclpy.init(args=[])
    node = Node("nre_replay")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinning.start()
    try:
        record = replay(node, options)
        if options.record:
            Path(options.record).write_text(json.dumps(record.asdict(), indent=1), encoding="utf-8")
        answers = record.asdict()
        print(f"{len(answers['images'])} images, {len(answers['poses'])} poses, latency {answers['latency_ms']} ms")
        return 0
    except (NreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        executor.shutdown()
        spinning.join(5.0)
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def _remaps(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition(":=") for text in texts]
    for (name, sign, target), text in zip(pairs, texts, strict=True):
        if not (name and sign and target):
            raise RecordingError(f"--remap {text!r} is not understood, expected FROM:=TO, such as /image_raw:=/image")
    return {name: target for name, _, target in pairs}


if __name__ == "__main__":
    sys.exit(main())
