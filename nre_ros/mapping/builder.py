"""From posed frames to a map: keyframes as they come, landmarks at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.errors import CalibrationError, MapError, RecordingError
from nre_ros.features import DenseFeatures, FeatureNetwork, limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.adjustment import Adjusted, adjust_landmarks
from nre_ros.mapping.bundle import Observations
from nre_ros.mapping.descriptors import mean_of_each, quantised
from nre_ros.mapping.guided import DenseView
from nre_ros.mapping.keypoints import Keypoints, detect
from nre_ros.mapping.landmarks import Sighting, place_landmarks
from nre_ros.mapping.map import Map, MapArrays
from nre_ros.mapping.measured_depth import depth_at
from nre_ros.mapping.misplaced import find_misplaced, without_misplaced
from nre_ros.mapping.refinement import Refinement, refine_poses
from nre_ros.mapping.retrieval import Vocabulary, aggregate, learn_vocabulary
from nre_ros.mapping.sanity import check_input
from nre_ros.mapping.selection import RECENT, Candidate, KeyframeSelection
from nre_ros.mapping.sharpness import sharpness
from nre_ros.mapping.tracks import View, track_keypoints
from nre_ros.recordings.frame import Frame

Progress = Callable[[str, int, int], None]
"""(what is being done, how much is done, of how much)"""

MIN_LANDMARKS = 20
"""Fewer make no map that anything could be found in."""


@dataclass(frozen=True)
class Keyframe:
    """What is kept of a frame: keypoints, what the network saw at them, its coarsest map for retrieval, and the image,
    losslessly, to be looked at again when landmarks are made."""

    stamp_ns: int
    camera: Camera
    map_from_cam: Pose
    keypoints: Keypoints
    depth: Tensor
    """(N,) float64 along the optical axis, NaN where unknown."""
    coarse: Tensor
    fine: Tensor
    context: Tensor
    image_png: np.ndarray
    """(B,) uint8."""

    def image_rgb(self) -> np.ndarray:
        image = cv2.imdecode(self.image_png, cv2.IMREAD_COLOR)
        if image is None:
            raise MapError(f"the image of the keyframe at {self.stamp_ns / 1e9:.3f} s is damaged; build the map afresh")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class KeyframeStore(Protocol):
    """Where a builder keeps its keyframes: a list, or a journal on disk."""

    def append(self, keyframe: Keyframe, /) -> None: ...
    def __getitem__(self, index: int, /) -> Keyframe: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Keyframe]: ...


class MapBuilder:
    """Feed frames with :meth:`add`, then :meth:`build`; both may go on in turn.

    Keeps about 1.5 MB a keyframe, in ``keyframes`` where given. Pixels of the map are those of the
    frames, reduced to ``config.max_image_side`` where they are longer.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        config: BuilderConfig,
        *,
        frame_id: str = "map",
        unit: str = "metre",
        keyframes: KeyframeStore | None = None,
    ) -> None:
        self._network = network
        self._config = config
        self._frame_id = frame_id
        self._unit = unit
        self._keyframes: KeyframeStore = [] if keyframes is None else keyframes
        self.refinement: Refinement | None = None
        """What ``config.refine_poses`` came to in the last map that was built."""
        self.remarks: list[str] = []
        """What the last building found wrong with single keyframes, a sentence each."""
        self._selection = KeyframeSelection(config)
        earlier = range(max(len(self._keyframes) - RECENT, 0), len(self._keyframes))
        self._selection.take_up(self._keyframes[i].image_rgb() for i in earlier)

    @property
    def keyframe_count(self) -> int:
        return len(self._keyframes)

    @property
    def map_from_keyframe(self) -> list[Pose]:
        return [keyframe.map_from_cam for keyframe in self._keyframes]

    def add(self, frame: Frame) -> bool:
        """Consider a frame; True if a keyframe came of it, because the view moved or holds much that is new.

        A blurred frame waits for a sharper one: the next frames, or :meth:`settle`, decide whether it becomes one.
        Raises RecordingError for a frame without a usable pose or with depth of another size, CalibrationError for
        an image that is not of the camera's size.
        """
        pose = _checked_pose(frame)
        image, camera = limit_size(frame.image_rgb, frame.camera, self._config.max_image_side)
        keypoints = detect(image, self._config.points_per_keyframe)
        depth = depth_at(frame.depth_m, keypoints.uv_px, camera)
        candidate = Candidate(frame.stamp_ns, image, camera, pose, keypoints, depth, sharpness(image))
        last = self._keyframes[-1] if len(self._keyframes) else None
        chosen = self._selection.choose(candidate, None if last is None else (last.keypoints, last.camera))
        for each in chosen:
            self._append(each)
        return bool(chosen)

    def settle(self) -> None:
        """Make a keyframe of the frame that waits for a sharper one, if there is any: none will come."""
        for each in self._selection.rest():
            self._append(each)

    def build(self, progress: Progress | None = None) -> Map:
        """Make a map of the keyframes so far. Raises MapError when they hold too little for one."""
        tell = progress or (lambda stage, done, total: None)
        self.settle()
        if len(self._keyframes) < 2:
            raise MapError(
                f"a map needs at least 2 keyframes, got {len(self._keyframes)}: the camera must move and see texture"
            )
        views = [_view(keyframe) for keyframe in self._keyframes]
        depths = [keyframe.depth for keyframe in self._keyframes]
        check_input(views, depths, self._config.max_epipolar_px)
        cameras = [keyframe.camera for keyframe in self._keyframes]
        measured = [torch.isfinite(depth) for depth in depths]
        tracks = track_keypoints(views, measured, self._config.max_epipolar_px, tell, self._describe)
        sightings, xyz_map, exact = place_landmarks(tracks, views, depths, cameras, self._config, tell)
        if self._config.refine_poses and len(xyz_map):
            seen = _observations([view.keypoints for view in views], sightings)
            self.refinement = refine_poses(
                _poses(views), cameras, xyz_map, seen, self._config, lambda i, n: tell("poses", i, n)
            )
            if self.refinement.better:
                refined = self.refinement.map_from_cam
                views = [replace(view, map_from_cam=refined[i]) for i, view in enumerate(views)]
                sightings, xyz_map, exact = place_landmarks(tracks, views, depths, cameras, self._config, tell)
        if len(xyz_map) < MIN_LANDMARKS:
            raise MapError(
                f"only {len(xyz_map)} landmarks came of {len(self._keyframes)} keyframes, expected at least "
                f"{MIN_LANDMARKS}: check that the poses belong to the images, and that the scene has texture"
            )
        tell("retrieval", 0, 1)
        vocabulary = learn_vocabulary((keyframe.context for keyframe in self._keyframes), len(self._keyframes))
        global_descriptors = torch.stack([aggregate(k.context, vocabulary) for k in self._keyframes]).half()
        tell("retrieval", 1, 1)
        coarse, fine = self._mean_descriptors(sightings, len(xyz_map))
        seen = _observations([view.keypoints for view in views], sightings)
        adjusted = adjust_landmarks(
            seen,
            xyz_map,
            fine,
            ~exact,
            _poses(views),
            cameras,
            self._describe,
            self._config,
            lambda i, n: tell("adjustment", i, n),
        )
        tell("adjustment", 1, 1)
        whole = self._assemble(_poses(views), adjusted, coarse, vocabulary, global_descriptors)
        wrong = find_misplaced(views, sightings, xyz_map, self._config.max_reprojection_px)
        map_, self.remarks = without_misplaced(whole, wrong)
        return map_

    def _describe(self, index: int) -> DenseView:
        keyframe = self._keyframes[index]
        features = self._network.extract(keyframe.image_rgb())
        levels = {name: replace(level, values=level.values.cpu()) for name, level in vars(features).items()}
        return DenseView(keyframe.camera, keyframe.map_from_cam, DenseFeatures(**levels))

    def _append(self, chosen: Candidate) -> None:
        features = self._network.extract(chosen.image_rgb)
        uv_px = torch.from_numpy(chosen.keypoints.uv_px).float().to(self._network.device)
        self._keyframes.append(
            Keyframe(
                chosen.stamp_ns,
                chosen.camera,
                chosen.map_from_cam,
                chosen.keypoints,
                chosen.depth,
                features.coarse.sample(uv_px).half().cpu(),
                features.fine.sample(uv_px).half().cpu(),
                features.context.values.half().cpu(),
                _png(chosen.image_rgb),
            )
        )

    def _mean_descriptors(self, sightings: list[Sighting], count: int) -> tuple[Tensor, Tensor]:
        """Coarse (count, Cc) and fine (count, Cf) float32: the means of what the keyframes hold of each landmark."""
        seen = list(zip(self._keyframes, sightings, strict=True))
        coarse = ((_with_spots(k.coarse, s.spots.coarse)[s.place], s.landmark) for k, s in seen)
        fine = ((_with_spots(k.fine, s.spots.fine)[s.place], s.landmark) for k, s in seen)
        return mean_of_each(coarse, count), mean_of_each(fine, count)

    def _assemble(
        self, map_from_cam: Pose, adjusted: Adjusted, coarse: Tensor, vocabulary: Vocabulary, global_descriptors: Tensor
    ) -> Map:
        frames, seen = self._keyframes, adjusted.seen
        cameras = list(dict.fromkeys(keyframe.camera for keyframe in frames))
        coarse_bytes, coarse_scale = quantised(coarse)
        fine_bytes, fine_scale = quantised(adjusted.fine)
        arrays = MapArrays(
            xyz_map=adjusted.xyz_map,
            coarse=coarse_bytes,
            coarse_scale=coarse_scale,
            fine=fine_bytes,
            fine_scale=fine_scale,
            keyframe_pose=map_from_cam.matrix(),
            keyframe_stamp_ns=torch.tensor([k.stamp_ns for k in frames]),
            keyframe_camera=torch.tensor([cameras.index(k.camera) for k in frames], dtype=torch.int32),
            keyframe_start=F.pad(torch.bincount(seen.view, minlength=len(frames)).cumsum(0), (1, 0)),
            keyframe_global=global_descriptors,
            context_axes=vocabulary.axes,
            vocabulary=vocabulary.centres,
            landmark=seen.point.int(),
            uv_px=seen.uv_px.float(),
        )
        network = self._network
        return Map(self._frame_id, self._unit, network.name, network.weights_hash, tuple(cameras), arrays)


def _with_spots(keypoints: Tensor, spots: Tensor) -> Tensor:
    return torch.cat([keypoints, spots]) if len(spots) else keypoints


def _png(image_rgb: np.ndarray) -> np.ndarray:
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return encoded.reshape(-1)


def _checked_pose(frame: Frame) -> Pose:
    where = frame.name or f"at {frame.stamp_ns / 1e9:.3f} s"
    if frame.map_from_cam is None:
        raise RecordingError(f"frame {where} has no pose; a map is made of posed frames")
    if not frame.map_from_cam.is_finite():
        raise RecordingError(f"the pose of frame {where} holds NaN or infinity")
    height, width = frame.image_rgb.shape[:2]
    if (width, height) != (frame.camera.width, frame.camera.height):
        raise CalibrationError(
            f"frame {where} is {width}x{height} pixels, its calibration says {frame.camera.width}x{frame.camera.height}"
        )
    if frame.depth_m is not None and frame.depth_m.shape != (height, width):
        raise RecordingError(
            f"the depth of frame {where} is {frame.depth_m.shape[1]}x{frame.depth_m.shape[0]} pixels, its image "
            f"{width}x{height}; register the depth to the image"
        )
    return frame.map_from_cam


def _poses(views: Sequence[View]) -> Pose:
    """map_from_cam (K)."""
    poses = [view.map_from_cam for view in views]
    return Pose(torch.stack([p.rotation for p in poses]), torch.stack([p.translation for p in poses]))


def _observations(keypoints: Sequence[Keypoints], sightings: Sequence[Sighting]) -> Observations:
    """Which view shows which landmark where; views one after the other."""
    uv_px = [
        torch.from_numpy(np.concatenate([own.uv_px, mine.spots.uv_px]))[mine.place]
        for own, mine in zip(keypoints, sightings, strict=True)
    ]
    count = torch.tensor([len(mine.place) for mine in sightings])
    return Observations(
        torch.repeat_interleave(torch.arange(len(sightings)), count),
        torch.cat([mine.landmark for mine in sightings]),
        torch.cat(uv_px),
    )


def _view(keyframe: Keyframe) -> View:
    camera = keyframe.camera
    known = keyframe.depth[torch.isfinite(keyframe.depth)]
    return View(
        keyframe.keypoints,
        camera.unproject(torch.from_numpy(keyframe.keypoints.uv_px)),
        keyframe.map_from_cam,
        (camera.fx + camera.fy) / 2,
        float(known.median()) if len(known) else None,
    )
