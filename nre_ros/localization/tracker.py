"""From image to image: where the camera is expected, which search that saves, and whether a pose fits in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nre_ros.config import LocalizerNodeConfig
from nre_ros.geometry import Pose
from nre_ros.localization.localizer import Localizer, View
from nre_ros.localization.prior import Prior
from nre_ros.localization.result import Localization, Search

BEGINS_ANEW_NS = 10**9
"""Stamps that go back further than this are those of another run: a replay that began again."""
JUMP_SIGMAS = 5.0
"""A pose this far from the expected one contradicts it."""
LEAST_ROTATION_RAD = math.radians(0.2)
LEAST_DEPTH_SHARE = 0.003
"""Expected poses are never surer than this: maps and clocks have errors of their own."""
JUDGED_ROTATION_RAD = math.radians(0.5)
JUDGED_DEPTH_SHARE = 0.01
"""Nor than this when they speak against a pose."""
ROTATION_RAD_PER_DEPTH = 0.01
"""Wheels that roll also turn: rotation error of a motion as long as the scene is deep."""


@dataclass(frozen=True)
class Motion:
    """How far odometry is trusted (shares of distance and angle), and how fast the camera moves without any."""

    translation_noise: float
    rotation_noise: float
    max_speed: float
    max_turn_rad: float

    @staticmethod
    def of(config: LocalizerNodeConfig) -> Motion:
        return Motion(
            config.odom_translation_noise,
            config.odom_rotation_noise,
            config.max_speed,
            math.radians(config.max_turn_rate),
        )


@dataclass(frozen=True)
class Sighting:
    """A known pose: at ``stamp_ns``, with what odometry said of it, None when it was silent.

    ``given`` by somebody, not seen in an image.
    """

    stamp_ns: int
    pose: Prior
    odom_from_cam: Pose | None
    given: bool = False


class Tracker:
    """Remembers the last believed pose. Poses are absolute, each from its own image: no error is handed on.

    A pose that contradicts the expected one is held back until others, each from its image, agree with it by odometry.
    One of so many tracked images is also looked for in the whole map: a place that looks like another would else be
    tracked for ever. Where that contradicts the tracked pose, so are the next images, until it is settled which holds.
    Not for several threads at once.
    """

    def __init__(self, localizer: Localizer) -> None:
        self.localizer = localizer
        self._last: Sighting | None = None
        self._held: list[Sighting] = []
        self._newest_ns = 0
        self._tracked = 0
        """Images since the whole map was looked through."""
        self._contradicted = 0
        """Images in a row whose tracked pose the whole map contradicted."""

    def forget(self) -> None:
        """The next pose may be anywhere."""
        self._last, self._held = None, []
        self._tracked = self._contradicted = 0

    def begins_anew(self, stamp_ns: int) -> bool:
        """Whether an image is of another run than those before; then what they said is forgotten."""
        anew = stamp_ns < self._newest_ns - BEGINS_ANEW_NS
        self._newest_ns = stamp_ns if anew else max(stamp_ns, self._newest_ns)
        if anew:
            self.forget()
        return anew

    def expect(self, prior: Prior, stamp_ns: int, odom_from_cam: Pose | None) -> None:
        """Somebody says that the camera is there; replaces what was known."""
        self.forget()
        self._last = Sighting(stamp_ns, prior, odom_from_cam, given=True)

    def find(
        self,
        view: View,
        stamp_ns: int,
        odom_from_cam: Pose | None,
        mode: str,
        motion: Motion,
        recheck_every: int = 0,
        consistent_fixes: int = 2,
    ) -> Localization:
        """Search where the pose is expected, and anywhere if it is not there, as ``mode`` (of the config) allows.

        Once an image contradicted a given pose, the next are searched for anywhere first: where that agrees, the
        search around the given pose is spared. In mode auto every ``recheck_every``-th tracked image (0: none) is
        searched for anywhere as well. What is found then counts where it contradicts the tracked pose, for the
        ``consistent_fixes`` further images that :meth:`objection` needs to believe it, too.
        """
        expected = self._expected(self._last, stamp_ns, odom_from_cam, motion)
        given = self._last is not None and self._last.given
        if expected is None or (mode == "global" and not given):
            return self._anywhere(view)
        anywhere = self._anywhere(view) if given and self._held and mode != "track" else None
        if anywhere is not None and self._confirms(anywhere, stamp_ns, odom_from_cam, motion):
            return anywhere
        found = self.localizer.track(view, expected)
        if not found.accepted and (given or mode == "track"):
            found = self.localizer.search_within(view, expected)
        if not found.accepted and mode != "track":
            return anywhere or self._anywhere(view)
        if mode != "auto" or found.search is not Search.TRACK or not recheck_every:
            return found
        self._tracked += 1
        due = self._tracked >= recheck_every or 0 < self._contradicted <= consistent_fixes
        return self._rechecked(found, view) if due else found

    def _anywhere(self, view: View) -> Localization:
        self._tracked = self._contradicted = 0
        return self.localizer.search(view)

    def _rechecked(self, tracked: Localization, view: View) -> Localization:
        """What the whole map answers about a tracked image where that is believed and another, else the tracked."""
        assert tracked.map_from_cam is not None and tracked.covariance is not None
        contradicted, anywhere = self._contradicted, self._anywhere(view)
        here = Prior(tracked.map_from_cam, tracked.covariance)
        if not anywhere.accepted or anywhere.covariance is None or self._agrees(here, anywhere):
            return replace(tracked, timings_ms=anywhere.timings_ms)
        self._contradicted = contradicted + 1
        return anywhere

    def objection(
        self, found: Localization, stamp_ns: int, odom_from_cam: Pose | None, consistent_fixes: int, motion: Motion
    ) -> str:
        """Believe an accepted pose, and return nothing; or hold it back, and say why.

        Only odometry, a given pose or another pose of the same image can be contradicted: how fast a camera moves is
        not known well enough.
        """
        assert found.map_from_cam is not None and found.covariance is not None
        sighting = Sighting(stamp_ns, Prior(found.map_from_cam, found.covariance), odom_from_cam)
        expected = self._expected(self._last, stamp_ns, odom_from_cam, motion)
        known = self._last is not None and (self._last.given or None not in (self._last.odom_from_cam, odom_from_cam))
        known = known or self._contradicted > 0
        if expected is None or not known or self._agrees(expected, found):
            return self._believe(sighting)
        confirms = self._confirms(found, stamp_ns, odom_from_cam, motion)
        self._held = [*self._held, sighting] if confirms else [sighting]
        further = len(self._held) - 1
        if further >= consistent_fixes:
            return self._believe(sighting)
        off = (expected.map_from_cam.inverse() @ found.map_from_cam).log()
        jump = f"{float(off[3:].norm()):.2f} m and {math.degrees(float(off[:3].norm())):.1f} deg"
        return f"held back: {jump} from where it is expected; {further} of {consistent_fixes} further poses agree"

    def _confirms(self, found: Localization, stamp_ns: int, odom_from_cam: Pose | None, motion: Motion) -> bool:
        """Whether a pose agrees with the last one that was held back."""
        before = self._expected(self._held[-1], stamp_ns, odom_from_cam, motion) if self._held else None
        return found.accepted and before is not None and self._agrees(before, found)

    def _believe(self, sighting: Sighting) -> str:
        self._last, self._held, self._contradicted = sighting, [], 0
        return ""

    def _agrees(self, expected: Prior, found: Localization) -> bool:
        assert found.map_from_cam is not None
        lenient = expected.at_least(JUDGED_ROTATION_RAD, JUDGED_DEPTH_SHARE * self.localizer.map.median_depth)
        return lenient.sigmas(found.map_from_cam, found.covariance) <= JUMP_SIGMAS

    def _expected(
        self, since: Sighting | None, stamp_ns: int, odom_from_cam: Pose | None, motion: Motion
    ) -> Prior | None:
        """Where the camera must be by now; None when nothing is known, or no time has passed that could be told."""
        if since is None:
            return None
        depth = self.localizer.map.median_depth
        rotation, translation = LEAST_ROTATION_RAD, LEAST_DEPTH_SHARE * depth
        if since.odom_from_cam is not None and odom_from_cam is not None:
            moved = since.odom_from_cam.inverse() @ odom_from_cam
            twist = moved.log()
            angle, distance = float(twist[:3].norm()), float(moved.translation.norm())
            rotation += motion.rotation_noise * angle + ROTATION_RAD_PER_DEPTH * distance / depth
            translation += motion.translation_noise * distance
            return since.pose.moved(moved, rotation, translation)
        if stamp_ns == 0 or since.stamp_ns == 0:
            return since.pose if since.given else None
        seconds = abs(stamp_ns - since.stamp_ns) * 1e-9
        # what is seldom exceeded is two standard deviations
        rotation, translation = (
            rotation + motion.max_turn_rad * seconds / 2,
            translation + motion.max_speed * seconds / 2,
        )
        return since.pose.moved(Pose.identity(), rotation, translation)
