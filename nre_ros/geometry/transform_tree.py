"""A tree of coordinate frames that move: what tf2's buffer does, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nre_ros.geometry.pose import Pose
from nre_ros.geometry.pose_track import (
    IDENTITY,
    PoseTrack,
    Rigid,
    TransformError,
    TransformReason,
    compose,
    invert,
    pose_from_rigid,
    rigid_from_pose,
    rigid_from_xyzw,
)

__all__ = ["CACHE_NS", "TransformError", "TransformReason", "TransformTree"]

CACHE_NS = 10_000_000_000
"""How far back a live tree remembers, as in tf2."""


@dataclass
class _Edge:
    """How a child hangs on its parent: ``fixed`` (parent_from_child) or moving along ``track``."""

    parent: str
    fixed: Rigid | None
    track: PoseTrack

    def at(self, stamp_ns: int) -> Rigid:
        return self.fixed if self.fixed is not None else self.track.at(stamp_ns)


class TransformTree:
    """Transforms between named frames over time. Not thread-safe: a caller with threads holds a lock.

    Each child has one parent; the last parent given wins and starts a new history, and so does the change between
    static and moving. Samples older than ``cache_ns`` before a child's newest are forgotten (None: all are kept, for
    recordings); neighbours ``max_gap_ns`` or more apart are not interpolated (None: always, as in tf2). A leading
    slash of a frame name is dropped.
    """

    def __init__(self, cache_ns: int | None = CACHE_NS, max_gap_ns: int | None = None) -> None:
        self._cache_ns, self._max_gap_ns = cache_ns, max_gap_ns
        self._edges: dict[str, _Edge] = {}

    def set_transform(
        self, parent: str, child: str, parent_from_child: Pose, stamp_ns: int, static: bool = False
    ) -> bool:
        """Add a sample from an unbatched Pose; see :meth:`set_transform_xyzw`."""
        try:
            value = rigid_from_pose(parent_from_child)
        except TransformError as error:
            raise _refused(parent, child, error) from None
        return self._set(parent, child, value, stamp_ns, static)

    def set_transform_xyzw(
        self,
        parent: str,
        child: str,
        xyz: Sequence[float],
        quat_xyzw: Sequence[float],
        stamp_ns: int,
        static: bool = False,
    ) -> bool:
        """Add a sample of parent_from_child as it stands in a message; False when it is too old to be kept.

        A static one holds at all times. Raises TransformError (INVALID), and keeps nothing, for NaN, quaternions
        far from unit length, empty names, and edges that would close a loop.
        """
        try:
            value = rigid_from_xyzw(xyz, quat_xyzw)
        except TransformError as error:
            raise _refused(parent, child, error) from None
        return self._set(parent, child, value, stamp_ns, static)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> Pose:
        """``target_from_source`` at a stamp, float64; None: at the latest stamp that all moving edges between reach.

        Raises TransformError with the reason UNKNOWN_FRAME, NOT_CONNECTED, EXTRAPOLATION_FUTURE (waiting may help),
        EXTRAPOLATION_PAST or GAP.
        """
        up_from_target, up_from_source = self._paths(_bare(target), _bare(source))
        if stamp_ns is None:
            moving = [e.track.latest_ns for e in (*up_from_target, *up_from_source) if e.fixed is None]
            stamp_ns = min(moving, default=0)
        common_from_target = _chain(up_from_target, stamp_ns)
        common_from_source = _chain(up_from_source, stamp_ns)
        return pose_from_rigid(compose(invert(common_from_target), common_from_source))

    def latest_ns(self, target: str, source: str) -> int | None:
        """The latest stamp at which :meth:`lookup` answers, None when all between is static; raises as it does."""
        edges = [edge for path in self._paths(_bare(target), _bare(source)) for edge in path]
        return min((e.track.latest_ns for e in edges if e.fixed is None), default=None)

    def frames(self) -> set[str]:
        """Every frame that was named as parent or child."""
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def root_of(self, frame: str) -> str:
        """The frame at the top of the tree that holds ``frame``; itself when nothing is above it."""
        name = _bare(frame)
        while name in self._edges:
            name = self._edges[name].parent
        return name

    def clear(self) -> None:
        """Forget all that moves, as when the clock jumped back; static transforms stay: nobody sends them again."""
        self._edges = {child: edge for child, edge in self._edges.items() if edge.fixed is not None}

    def _set(self, parent: str, child: str, value: Rigid, stamp_ns: int, static: bool) -> bool:
        parent, child = _bare(parent), _bare(child)
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or (edge.fixed is not None) is not static:
            self._refuse_bad_edge(parent, child)
            track = PoseTrack(f"transform {parent} -> {child}", cache_ns=self._cache_ns, max_gap_ns=self._max_gap_ns)
            edge = self._edges[child] = _Edge(parent, None, track)
        if static:
            edge.fixed = value
            return True
        return edge.track.add(stamp_ns, value)

    def _refuse_bad_edge(self, parent: str, child: str) -> None:
        if not parent or not child:
            raise TransformError(
                TransformReason.INVALID, f"transform {parent!r} -> {child!r} is refused: a frame name is empty"
            )
        name = parent
        while name != child and name in self._edges:
            name = self._edges[name].parent
        if name == child:
            raise TransformError(
                TransformReason.INVALID,
                f"transform {parent} -> {child} is refused: {child} is already above {parent}, "
                "so the frames would form a loop; two nodes publish the same frames in opposite directions",
            )

    def _paths(self, target: str, source: str) -> tuple[list[_Edge], list[_Edge]]:
        """Edges from each of the two frames up to their nearest common ancestor."""
        known = self.frames()
        for name in (target, source):
            if name not in known and target != source:
                listed = ", ".join(sorted(known)[:12]) or "none"
                raise TransformError(
                    TransformReason.UNKNOWN_FRAME, f"frame {name!r} is in no transform; known frames: {listed}"
                )
        above_target, above_source = self._ancestors(target), self._ancestors(source)
        depth = {name: i for i, name in enumerate(above_target)}
        for i, name in enumerate(above_source):
            if name in depth:
                return self._edges_of(above_target[: depth[name]]), self._edges_of(above_source[:i])
        raise TransformError(
            TransformReason.NOT_CONNECTED,
            f"frames {target} and {source} are not connected: their trees end at {above_target[-1]} and "
            f"{above_source[-1]}",
        )

    def _ancestors(self, name: str) -> list[str]:
        names = [name]
        while name in self._edges:
            name = self._edges[name].parent
            names.append(name)
        return names

    def _edges_of(self, children: list[str]) -> list[_Edge]:
        return [self._edges[child] for child in children]


def _chain(edges: list[_Edge], stamp_ns: int) -> Rigid:
    ancestor_from_frame = IDENTITY
    for edge in edges:
        ancestor_from_frame = compose(edge.at(stamp_ns), ancestor_from_frame)
    return ancestor_from_frame


def _refused(parent: str, child: str, error: TransformError) -> TransformError:
    return TransformError(error.reason, f"transform {parent} -> {child} is refused: {error}")


def _bare(frame: str) -> str:
    return frame.removeprefix("/")
