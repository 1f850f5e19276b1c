"""Every parameter's name, default, bounds and meaning: the only place where a default lives.

ROS parameters are declared from these dataclasses, ``config/*.yaml`` is written from them, and the commands'
``--set name=value`` is checked against them. Nested groups are joined by dots: ``nre.msac_iterations``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nre_ros.errors import ConfigError

Value = bool | int | float | str | tuple[float, ...]

NETWORKS = ("compact", "inception", "s2dnet")
"""Descriptor networks by name."""


def param(
    default: Value,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A dataclass field with what a user must know of it; ``live`` ones may change while a node is active."""
    return field(
        default=default,
        metadata={"description": description, "low": low, "high": high, "choices": choices, "live": live},
    )


@dataclass(frozen=True)
class NreConfig:
    """The estimator."""

    max_points: int = param(1000, "Most landmarks used for one pose", low=16, high=20000)
    msac_iterations: int = param(10000, "P3P samples drawn at most", low=1, high=100000)
    msac_share: float = param(
        0.5, "Share of the points, most certain first, that samples are drawn from", low=0.01, high=1.0
    )
    hypotheses: int = param(4, "Distinct P3P poses refined by GNC", low=1, high=64)
    coarse_sigma_max: float = param(1.0, "First Gaussian smoothing of the coarse maps, cells", low=0.2, high=64.0)
    coarse_sigma_min: float = param(0.6, "Last Gaussian smoothing of the coarse maps, cells", low=0.2, high=64.0)
    fine_sigma_max: float = param(2.0, "First Gaussian smoothing of the fine windows, cells", low=0.2, high=64.0)
    fine_sigma_min: float = param(0.6, "Last Gaussian smoothing of the fine windows, cells", low=0.2, high=64.0)
    fine_window: int = param(16, "Side of the first fine windows, cells of the fine stride", low=8, high=128)
    fine_rounds: int = param(2, "Times the fine windows are cut anew around the improved pose", low=0, high=8)
    fine_nats: float = param(
        2.0,
        "How far below its peak each fine map counts in the last round, nats; 0: the whole map",
        low=0.0,
        high=100.0,
    )
    skip_gnc: bool = param(False, "Stop after MSAC: no refinement, coarse or fine")
    use_re: bool = param(
        False, "Ask the best cell of every map alone: the robust reprojection error (Eq. 11) instead of NRE"
    )
    refinement: str = param(
        "nre",
        "What follows the coarse maps: nre, fine loss maps in windows; fpr, alignment of the fine features (Eq. 12)",
        choices=("nre", "fpr"),
    )
    conventions: str = param(
        "nre_ros",
        "original: cells, borders, Jacobian and schedule as in the authors' code, for comparisons",
        choices=("nre_ros", "original"),
    )
    seed: int = param(0, "Seed of the sampler: same image, same map, same pose", low=0)


@dataclass(frozen=True)
class AcceptConfig:
    """When a pose is believed."""

    false_accept_rate: float = param(
        1e-4,
        "Share of the images of other places that may pass for the map's: less gives surer and fewer answers",
        low=1e-9,
        high=0.1,
        live=True,
    )
    calibration: str = param("", "File of nre_ros calibrate, needed for other weights; empty: that of the package")


@dataclass(frozen=True)
class LocalizerConfig:
    """One query image against one map."""

    device: str = param("auto", "Where the network and the estimator run", choices=("auto", "cuda", "cpu"))
    network: str = param("compact", "Network that describes the images", choices=NETWORKS)
    weights: str = param("", "Files of the network's weights, joined by ':'; empty: those of the package")
    top_k: int = param(8, "Keyframes retrieved for a query", low=1, high=200)
    device_memory_mb: int = param(
        512,
        "Most device memory for the descriptors that keyframes are retrieved by (3 kB each); if they take more, the "
        "CPU searches them, MB",
        low=0,
        high=1000000,
    )
    track_points: int = param(
        400, "Most landmarks used for a pose that is tracked: all of them lie in view", low=16, high=20000
    )
    max_image_side: int = param(
        1280, "Longer images are reduced to this before the network sees them, pixels", low=64, high=8192
    )
    nre: NreConfig = field(default_factory=NreConfig)
    accept: AcceptConfig = field(default_factory=AcceptConfig)


@dataclass(frozen=True)
class BuilderConfig:
    """Making a map from posed frames."""

    device: str = param("auto", "Where the network runs", choices=("auto", "cuda", "cpu"))
    network: str = param("compact", "Network that describes the images", choices=NETWORKS)
    weights: str = param("", "Files of the network's weights, joined by ':'; empty: those of the package")
    max_image_side: int = param(
        1280, "Longer images are reduced to this before the network sees them, pixels", low=64, high=8192
    )
    keyframe_motion: float = param(
        0.015,
        "Median motion of matched keypoints since the last keyframe that makes a new one, share of the image width",
        low=0.0,
        high=1.0,
    )
    keyframe_overlap: float = param(
        0.4, "Share of keypoints matched to the last keyframe below which a frame becomes one", low=0.0, high=1.0
    )
    keyframe_sharpness: float = param(
        0.55,
        "Sharpness, as share of the last keyframes', below which a frame becomes one only if no sharper one shows the "
        "same; 0: never looked at",
        low=0.0,
        high=1.0,
    )
    points_per_keyframe: int = param(1500, "Keypoints looked for in a keyframe", low=50, high=20000)
    min_track_length: int = param(2, "Keyframes that must see a landmark", low=2, high=20)
    max_epipolar_px: float = param(
        2.5, "Largest distance of a match from its epipolar line, pixels", low=0.1, high=50.0
    )
    max_reprojection_px: float = param(
        2.0, "Largest reprojection error of a landmark's observation, pixels", low=0.1, high=50.0
    )
    min_triangulation_deg: float = param(
        1.0, "Smallest angle between two rays that fix a landmark, degrees", low=0.0, high=90.0
    )
    refine_poses: bool = param(
        False, "Refine the keyframes' poses by their landmarks; the given ones stay where others do not agree better"
    )
    pose_sigma_deg: float = param(
        0.3, "Standard deviation of the given poses' rotations, for refine_poses, degrees", low=1e-4, high=45.0
    )
    pose_sigma_position: float = param(
        0.01,
        "Standard deviation of the given positions, for refine_poses, share of the median depth of the landmarks",
        low=1e-6,
        high=1.0,
    )


@dataclass(frozen=True)
class LocalizerNodeConfig:
    """The node ``nre_localizer``."""

    map_path: str = param("", "Folder of the map", live=True)
    autostart: bool = param(False, "Configure and activate without being asked")
    global_frame_id: str = param("map", "Frame of the published poses")
    odom_frame_id: str = param("odom", "Odometry frame, child of the global frame in tf_mode map_to_odom")
    base_frame_id: str = param("base_link", "Robot frame")
    camera_frame_id: str = param("", "Optical frame of the camera; empty: the image's header.frame_id")
    output_frame: str = param("base", "Whose pose is published", choices=("base", "camera"))
    tf_broadcast: bool = param(True, "Publish the transform named by tf_mode")
    tf_mode: str = param(
        "map_to_odom",
        "Transform that carries the answer",
        choices=("map_to_odom", "map_to_base", "map_to_camera", "none"),
    )
    tf_rate: float = param(20.0, "Rate of the transform's rebroadcast, Hz", low=0.1, high=1000.0)
    tf_timeout: float = param(0.5, "Longest wait for odometry at the image stamp, s", low=0.0, high=10.0)
    transform_tolerance: float = param(0.1, "How far the transform is dated ahead, s", low=0.0, high=10.0, live=True)
    lost_timeout: float = param(
        5.0, "Age of the last accepted pose at which the transform stops, s", low=0.1, high=3600.0, live=True
    )
    stale_timeout: float = param(
        2.0, "Silence of the camera at which diagnostics complain, s", low=0.1, high=3600.0, live=True
    )
    slow_latency: float = param(
        1.0, "Median time from image to pose at which diagnostics complain, s", low=0.01, high=60.0, live=True
    )
    mode: str = param(
        "auto",
        "auto: from where odometry expects the robot, else anywhere; global: anywhere, always; track: once localized, "
        "only around where the robot is expected",
        choices=("auto", "global", "track"),
        live=True,
    )
    recheck_every: int = param(
        25,
        "One of so many tracked images is also looked for in the whole map, in mode auto; 0: none",
        low=0,
        high=1000000,
        live=True,
    )
    consistent_fixes: int = param(
        2, "Further poses that must agree before one that contradicts odometry is believed", low=0, high=100, live=True
    )
    odom_translation_noise: float = param(
        0.1, "Standard deviation of odometry's distances, share of the distance", low=0.0, high=10.0, live=True
    )
    odom_rotation_noise: float = param(
        0.05, "Standard deviation of odometry's angles, share of the angle", low=0.0, high=10.0, live=True
    )
    max_speed: float = param(
        1.0, "Speed that the robot seldom exceeds, for images without odometry, m/s", low=0.0, high=1000.0, live=True
    )
    max_turn_rate: float = param(
        45.0, "Turn rate that it seldom exceeds, for images without odometry, deg/s", low=0.0, high=10000.0, live=True
    )
    threads: int = param(0, "Threads that torch computes with on the CPU; 0: as many as it likes", low=0, high=1024)
    rate_limit: float = param(
        0.0, "Most queries a second; 0: as many as the machine manages, Hz", low=0.0, high=1000.0, live=True
    )
    camera_extrinsics: tuple[float, ...] = param(
        (), "base_from_camera as x y z qx qy qz qw (m), for bags without tf_static; empty: from TF"
    )
    relocalize_timeout: float = param(
        10.0, "Longest time ~/relocalize waits for its attempt, s", low=0.1, high=300.0, live=True
    )
    localizer: LocalizerConfig = field(default_factory=LocalizerConfig)


@dataclass(frozen=True)
class BuilderNodeConfig:
    """The node ``nre_map_builder``."""

    map_path: str = param("", "Folder that ~/save_map writes", live=True)
    autostart: bool = param(False, "Configure and activate without being asked")
    global_frame_id: str = param("map", "Frame of the poses and of the map")
    base_frame_id: str = param("base_link", "Robot frame; poses from topics are poses of it")
    camera_frame_id: str = param("", "Optical frame of the camera; empty: the image's header.frame_id")
    stale_timeout: float = param(
        2.0, "Silence of the camera at which diagnostics complain, s", low=0.1, high=3600.0, live=True
    )
    queue_size: int = param(8, "Frames that wait for the builder; one more and the oldest is dropped", low=1, high=1000)
    pose_source: str = param("tf", "Where poses come from", choices=("tf", "odometry", "pose", "pose_with_covariance"))
    tf_timeout: float = param(0.5, "Longest wait for a pose at the image stamp, s", low=0.0, high=10.0)
    max_pose_gap: float = param(
        1.0, "Poses this far apart or more are not interpolated: the robot was out of sight, s", low=0.001, high=60.0
    )
    camera_extrinsics: tuple[float, ...] = param(
        (), "base_from_camera as x y z qx qy qz qw (m), for robots without tf_static; empty: from TF"
    )
    resume: bool = param(
        True, "Take up the keyframes of an interrupted session in map_path; false: set them aside and begin anew"
    )
    memory_keyframes: int = param(
        500,
        "Keyframes kept in memory while they cannot be written to map_path; then collecting pauses (1 to 3 MB each)",
        low=2,
        high=100000,
    )
    builder: BuilderConfig = field(default_factory=BuilderConfig)


Config = TypeVar("Config")
_TRANSPARENT = ("localizer", "builder")
"""Groups whose members take no prefix: a user writes ``top_k``, not ``localizer.top_k``."""


@dataclass(frozen=True)
class Parameter:
    """One leaf of a configuration, under its dotted name."""

    name: str
    default: Value
    description: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    live: bool

    def check(self, value: object) -> Value:
        """The value in the parameter's type; raises ConfigError naming the bounds it breaks."""
        want = type(self.default)
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if want is tuple and isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
            value = tuple(float(v) for v in value)
        if type(value) is not want:
            raise ConfigError(f"parameter {self.name} is {value!r}, expected {want.__name__}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"parameter {self.name} is {value!r}, expected one of {', '.join(self.choices)}")
        if isinstance(value, int | float):
            below = self.low is not None and not value >= self.low
            above = self.high is not None and not value <= self.high
            if below or above:
                raise ConfigError(f"parameter {self.name} is {value}, expected {self.low} to {self.high}")
        return value  # type: ignore[return-value]

    def parse(self, text: str) -> Value:
        """From what a user types: ``true``, ``3``, ``0.5``, ``1,2,3``; checked."""
        want = type(self.default)
        try:
            if want is bool:
                return {"true": True, "false": False}[text.lower()]
            if want is tuple:
                return self.check([float(v) for v in text.split(",") if v])
            return self.check(want(text))  # type: ignore[call-arg, arg-type]
        except (ValueError, KeyError):
            raise ConfigError(f"parameter {self.name} is {text!r}, expected {want.__name__}") from None


def parameters(config: object, prefix: str = "") -> Iterator[Parameter]:
    """Every leaf of a configuration dataclass (a class or an instance), in order of definition."""
    instance = config() if isinstance(config, type) else config
    for item in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, item.name)
        if dataclasses.is_dataclass(value):
            yield from parameters(value, prefix if item.name in _TRANSPARENT else f"{prefix}{item.name}.")
        else:
            yield Parameter(name=f"{prefix}{item.name}", default=value, **item.metadata)


def with_values(config: Config, values: Mapping[str, object]) -> Config:
    """A copy with the dotted names in ``values`` replaced; raises ConfigError for unknown names and bad values."""
    known = {p.name: p for p in parameters(config)}
    for name in values:
        if name not in known:
            raise ConfigError(f"parameter {name} is unknown; known ones: {', '.join(sorted(known))}")
    return _replaced(config, {name: known[name].check(value) for name, value in values.items()}, "")


def _replaced(config: Any, values: Mapping[str, Value], prefix: str) -> Any:
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replaced(value, values, prefix if item.name in _TRANSPARENT else f"{name}.")
        elif name in values:
            changes[item.name] = values[name]
    return dataclasses.replace(config, **changes)


def parse_assignments(config: object, assignments: list[str]) -> dict[str, Value]:
    """``["nre.seed=3", ...]`` to checked values; raises ConfigError for anything else."""
    known = {p.name: p for p in parameters(config)}
    values: dict[str, Value] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is no assignment; expected name=value, such as nre.seed=3")
        if name not in known:
            raise ConfigError(f"parameter {name} is unknown; known ones: {', '.join(sorted(known))}")
        values[name] = known[name].parse(value)
    return values
