"""From posed frames to a map: keyframes as they come, landmarks at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.errors import CalibrationError, MapError, RecordingError
from nre_ros.features import DenseFeatures, FeatureNetwork, limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.descriptors import mean_of_each, quantised
from nre_ros.mapping.guided import DenseView
from nre_ros.mapping.keypoints import Keypoints, detect, match
from nre_ros.mapping.landmarks import Sighting, find_landmarks
from nre_ros.mapping.map import Map, MapArrays
from nre_ros.mapping.retrieval import Vocabulary, aggregate, learn_vocabulary
from nre_ros.mapping.sanity import check_input
from nre_ros.mapping.tracks import View
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

    @property
    def keyframe_count(self) -> int:
        return len(self._keyframes)

    @property
    def map_from_keyframe(self) -> list[Pose]:
        return [keyframe.map_from_cam for keyframe in self._keyframes]

    def add(self, frame: Frame) -> bool:
        """Consider a frame; True if it became a keyframe, because the view moved or holds much that is new.

        Raises RecordingError for a frame without a usable pose or with depth of another size, CalibrationError for
        an image that is not of the camera's size.
        """
        pose = _checked_pose(frame)
        image, camera = limit_size(frame.image_rgb, frame.camera, self._config.max_image_side)
        keypoints = detect(image, self._config.points_per_keyframe)
        if not self._is_new(keypoints, camera):
            return False
        features = self._network.extract(image)
        uv_px = torch.from_numpy(keypoints.uv_px).float()
        self._keyframes.append(
            Keyframe(
                frame.stamp_ns,
                camera,
                pose,
                keypoints,
                _depth_at(frame.depth_m, keypoints.uv_px, camera),
                features.coarse.sample(uv_px.to(self._network.device)).half().cpu(),
                features.fine.sample(uv_px.to(self._network.device)).half().cpu(),
                features.context.values.half().cpu(),
                _png(image),
            )
        )
        return True

    def build(self, progress: Progress | None = None) -> Map:
        """Make a map of the keyframes so far. Raises MapError when they hold too little for one."""
        tell = progress or (lambda stage, done, total: None)
        if len(self._keyframes) < 2:
            raise MapError(
                f"a map needs at least 2 keyframes, got {len(self._keyframes)}: the camera must move and see texture"
            )
        views = [_view(keyframe) for keyframe in self._keyframes]
        depths = [keyframe.depth for keyframe in self._keyframes]
        check_input(views, depths, self._config.max_epipolar_px)
        sightings, xyz_map = find_landmarks(
            views,
            depths,
            [keyframe.camera for keyframe in self._keyframes],
            self._config,
            tell,
            self._describe,
        )
        if len(xyz_map) < MIN_LANDMARKS:
            raise MapError(
                f"only {len(xyz_map)} landmarks came of {len(self._keyframes)} keyframes, expected at least "
                f"{MIN_LANDMARKS}: check that the poses belong to the images, and that the scene has texture"
            )
        tell("retrieval", 0, 1)
        vocabulary = learn_vocabulary((keyframe.context for keyframe in self._keyframes), len(self._keyframes))
        global_descriptors = torch.stack([aggregate(k.context, vocabulary) for k in self._keyframes]).half()
        tell("retrieval", 1, 1)
        return self._assemble(sightings, xyz_map, vocabulary, global_descriptors)

    def _describe(self, index: int) -> DenseView:
        keyframe = self._keyframes[index]
        features = self._network.extract(keyframe.image_rgb())
        levels = {name: replace(level, values=level.values.cpu()) for name, level in vars(features).items()}
        return DenseView(keyframe.camera, keyframe.map_from_cam, DenseFeatures(**levels))

    def _is_new(self, keypoints: Keypoints, camera: Camera) -> bool:
        if not self._keyframes:
            return True
        last = self._keyframes[-1]
        if last.camera != camera:
            return True
        pairs, _ = match(last.keypoints, keypoints)
        fewest = max(1, min(len(keypoints), len(last.keypoints)))
        if len(pairs) < self._config.keyframe_overlap * fewest:
            return True
        motion = np.linalg.norm(last.keypoints.uv_px[pairs[:, 0]] - keypoints.uv_px[pairs[:, 1]], axis=1)
        return bool(np.median(motion) > self._config.keyframe_motion * camera.width)

    def _assemble(
        self, sightings: list[Sighting], xyz_map: Tensor, vocabulary: Vocabulary, global_descriptors: Tensor
    ) -> Map:
        frames = self._keyframes
        cameras = list(dict.fromkeys(keyframe.camera for keyframe in frames))
        seen = list(zip(frames, sightings, strict=True))
        coarse = ((_with_spots(k.coarse, s.spots.coarse)[s.place], s.landmark) for k, s in seen)
        fine = ((_with_spots(k.fine, s.spots.fine)[s.place], s.landmark) for k, s in seen)
        coarse_bytes, coarse_scale = quantised(mean_of_each(coarse, len(xyz_map)))
        fine_bytes, fine_scale = quantised(mean_of_each(fine, len(xyz_map)))
        uv_px = [torch.from_numpy(np.concatenate([k.keypoints.uv_px, s.spots.uv_px]))[s.place] for k, s in seen]
        arrays = MapArrays(
            xyz_map=xyz_map,
            coarse=coarse_bytes,
            coarse_scale=coarse_scale,
            fine=fine_bytes,
            fine_scale=fine_scale,
            keyframe_pose=torch.stack([k.map_from_cam.matrix() for k in frames]),
            keyframe_stamp_ns=torch.tensor([k.stamp_ns for k in frames]),
            keyframe_camera=torch.tensor([cameras.index(k.camera) for k in frames], dtype=torch.int32),
            keyframe_start=torch.tensor([0] + [len(s.place) for s in sightings]).cumsum(0),
            keyframe_global=global_descriptors,
            context_axes=vocabulary.axes,
            vocabulary=vocabulary.centres,
            landmark=torch.cat([s.landmark for s in sightings]).int(),
            uv_px=torch.cat(uv_px).float(),
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


def _depth_at(depth_m: np.ndarray | None, uv_px: np.ndarray, camera: Camera) -> Tensor:
    """Depth (N,) at keypoints of the (reduced) image: the median of 3 x 3 pixels, NaN unless these agree to 5 %."""
    if depth_m is None or not len(uv_px):
        return torch.full((len(uv_px),), torch.nan, dtype=torch.float64)
    height, width = depth_m.shape
    centre = (uv_px + 0.5) * [width / camera.width, height / camera.height] - 0.5
    column, row = np.rint(centre).astype(int).T
    steps = np.arange(-1, 2)
    rows = (row[:, None, None] + steps[:, None]).clip(0, height - 1)
    columns = (column[:, None, None] + steps[None, :]).clip(0, width - 1)
    patch = depth_m[rows, columns].reshape(len(uv_px), 9).astype(np.float64)
    known = np.isfinite(patch).all(1) & (patch > 0).all(1)
    patch[~known] = np.nan
    middle = np.full(len(uv_px), np.nan)
    middle[known] = np.median(patch[known], axis=1)
    steady = known & (np.ptp(patch, axis=1) < 0.05 * middle)
    return torch.from_numpy(np.where(steady, middle, np.nan))


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
