"""``nre_ros doctor``: what on this machine, in this map and in the running ROS system would stop the localizer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

from nre_ros.cli.figures import write_json
from nre_ros.cli.findings import Finding, asked_of_child, worst

CHECK_TIMEOUT_S = 60.0
"""Longest time a check in a process of its own may take; most take two or three seconds."""
LISTEN_S = 3.0
GRAPH = "nre_ros.ros.doctor_graph"
Asked = Future[list[Finding]]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what on this machine would stop the localizer, and what to do about it",
        description="Checks Python, torch and CUDA, NumPy against cv_bridge, the middleware and its shared memory, the "
        "weights and, if one is given, the map; then listens to the running ROS system: topics, types and QoS, images, "
        "calibration, frames, clock. A line each: ok, warn or fail, and what to do. Exit code 1 when something fails.",
    )
    parser.add_argument("--map", metavar="MAP", help="folder of the map to check")
    parser.add_argument("--json", metavar="FILE", help="write the findings")
    parser.add_argument("--no-ros", action="store_true", help="do not listen to the running ROS system")
    parser.add_argument("--image", default="image", metavar="TOPIC", help="the camera's images (default: %(default)s)")
    parser.add_argument(
        "--camera-info", default="camera_info", metavar="TOPIC", help="its calibration (default: %(default)s)"
    )
    parser.add_argument("--namespace", default="", metavar="NAME", help="namespace of the node and its topics")
    parser.add_argument("--odom-frame", default="odom", metavar="FRAME", help="odometry frame (default: %(default)s)")
    parser.add_argument("--base-frame", default="base_link", metavar="FRAME", help="robot frame (default: %(default)s)")
    parser.add_argument(
        "--listen", type=float, default=LISTEN_S, metavar="S", help="time to listen for (default: %(default)g s)"
    )


def run(args: argparse.Namespace) -> int:
    """Print each finding as it comes; returns 1 when one of them is a failure. Raises NreError for a bad --json."""
    findings: list[Finding] = []
    for finding in _findings(args):
        print(finding, flush=True)
        findings.append(finding)
    counts = {level: sum(f.level == level for f in findings) for level in ("ok", "warn", "fail")}
    print(f"{counts['fail']} failures, {counts['warn']} warnings, {counts['ok']} ok")
    if args.json:
        write_json(args.json, {"counts": counts, "findings": [asdict(finding) for finding in findings]})
    return 1 if worst(findings) == "fail" else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    from nre_ros.cli import doctor_machine as machine

    with ThreadPoolExecutor() as pool:  # each waits for a process

        def ask(subject: str, module: str, words: Sequence[str] = (), timeout_s: float = CHECK_TIMEOUT_S) -> Asked:
            return pool.submit(asked_of_child, subject, module, words, timeout_s)

        torch = ask("torch", "nre_ros.cli.doctor_torch")
        content = ask("weights, map", "nre_ros.cli.doctor_map", [args.map] if args.map else [])
        cv_bridge = ask("cv_bridge", "nre_ros.ros.doctor_cv_bridge")
        graph = None if args.no_ros else ask("ROS", GRAPH, _graph_words(args), CHECK_TIMEOUT_S + args.listen)
        yield machine.python_version()
        yield from torch.result()
        yield from content.result()
        yield machine.disk(args.map or ".")
        yield from cv_bridge.result()
        yield machine.domain(os.environ)
        yield from machine.middleware(os.environ)
        if graph is not None:
            yield from graph.result()


def _graph_words(args: argparse.Namespace) -> list[str]:
    words = ["--image", args.image, "--camera-info", args.camera_info, "--namespace", args.namespace]
    return [*words, "--odom-frame", args.odom_frame, "--base-frame", args.base_frame, "--listen", str(args.listen)]
