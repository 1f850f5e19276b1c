"""What a localizer node published while a bag was replayed to it, against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nre_ros.evaluation.metrics import Answer
from nre_ros.geometry import Pose

_SETTLED_NS = 10_000_000
"""Messages of two topics may swap places on arrival; a transform this long before the next pose is surely older."""


@dataclass(frozen=True)
class Query:
    """An image of the replayed bag: its stamp, its true ``map_from_cam`` and what odometry says, ``odom_from_cam``.

    Where the node publishes another transform than map -> odom, the latter is from that one's child to the camera.
    """

    stamp_ns: int
    map_from_cam: Pose
    odom_from_cam: Pose
    name: str = ""


def answers_by_pose(record: Mapping[str, Any], queries: Sequence[Query], base_from_cam: Pose) -> list[Answer]:
    """From the published PoseStamped (map_from_base), with the covariance of the PoseWithCovarianceStamped.

    ``record`` is the JSON that the replay wrote.
    """
    given = {entry["stamp_ns"]: entry for entry in record["poses"]}
    unsure = {entry["stamp_ns"]: entry for entry in record.get("poses_with_covariance", ())}
    answers = []
    for query in queries:
        stamp_ns = query.stamp_ns
        answer = _answer(record, query, _pose(given[stamp_ns]) @ base_from_cam if stamp_ns in given else None)
        if stamp_ns in unsure:
            answer = replace(answer, covariance=camera_covariance(unsure[stamp_ns], base_from_cam))
        answers.append(answer)
    return answers


def camera_covariance(entry: Mapping[str, Any], base_from_cam: Pose) -> torch.Tensor:
    """What a published covariance says of the twist x, rotation first, in ``map_from_cam @ exp(x)``: (6, 6).

    ROS means x, y, z and the rotation about the fixed axes of the map, of the base. How these answer to x is measured
    by moving the camera a little: not the node's formula turned round, so that an error in that one shows in the NEES.
    """
    map_from_base = _pose(entry)
    step = 1e-5 * torch.eye(6, dtype=torch.float64)
    moved = (map_from_base @ base_from_cam) @ Pose.exp(torch.cat([step, -step])) @ base_from_cam.inverse()
    turned = Pose(moved.rotation @ map_from_base.rotation.mT, torch.zeros_like(moved.translation)).log()[:, :3]
    answered = torch.cat([moved.translation, turned], -1)
    ros_by_twist = ((answered[:6] - answered[6:]) / 2e-5).T
    twist_by_ros = torch.linalg.inv(ros_by_twist)
    covariance = torch.tensor(entry["covariance"], dtype=torch.float64).reshape(6, 6)
    return twist_by_ros @ covariance @ twist_by_ros.T


def answers_by_transform(
    record: Mapping[str, Any], queries: Sequence[Query], parent: str = "map", child: str = "odom"
) -> list[Answer]:
    """From the transform map -> odom that stood after each fix, with the bag's odometry at the image's stamp."""
    poses = sorted(record["poses"], key=lambda entry: entry["arrival_ns"])
    links = [t for t in record["transforms"] if (t["parent"], t["child"]) == (parent, child)]
    ends = [later["arrival_ns"] - _SETTLED_NS for later in poses[1:]] + [None]
    standing = {}
    for entry, end_ns in zip(poses, ends, strict=True):
        during = [
            t for t in links if t["arrival_ns"] >= entry["arrival_ns"] and (end_ns is None or t["arrival_ns"] < end_ns)
        ]
        if during:
            standing[entry["stamp_ns"]] = during[-1]
    return [
        _answer(record, q, _pose(standing[q.stamp_ns]) @ q.odom_from_cam if q.stamp_ns in standing else None)
        for q in queries
    ]


def _answer(record: Mapping[str, Any], query: Query, map_from_cam: Pose | None) -> Answer:
    stamp_ns = query.stamp_ns
    if map_from_cam is not None:
        status, reason = "accepted", ""
    elif stamp_ns in record["unanswered"]:
        status, reason = "missed", "the node did not get to this image"
    else:
        status, reason = "rejected", "the node published no pose for this image"
    return Answer(
        stamp_ns=stamp_ns,
        name=query.name,
        status=status,
        reason=reason,
        score=float("nan"),
        map_from_cam=map_from_cam,
        truth=query.map_from_cam,
        latency_ms=_latency_ms(record, stamp_ns),
        stages_ms={},
    )


def _latency_ms(record: Mapping[str, Any], stamp_ns: int) -> float:
    """From the image's publication to the pose's arrival; NaN without a pose."""
    arrivals = [entry["arrival_ns"] for entry in record["poses"] if entry["stamp_ns"] == stamp_ns]
    sent = [image["publish_ns"] for image in record["images"] if image["stamp_ns"] == stamp_ns]
    return (arrivals[0] - sent[0]) / 1e6 if arrivals and sent else float("nan")


def _pose(entry: Mapping[str, Any]) -> Pose:
    xyz, quat_xyzw = (torch.tensor(entry[key], dtype=torch.float64) for key in ("xyz", "quat_xyzw"))
    return Pose.from_quat_xyzw(xyz, quat_xyzw)
