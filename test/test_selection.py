"""Blurred frames give way to sharper ones that show the same, and no place is lost that was seen only blurred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import ros_world
from small_recordings import make_frames

from nre_ros.config import BuilderConfig, with_values
from nre_ros.evaluation.degradations import degrade, parse_degradations
from nre_ros.features import FeatureNetwork
from nre_ros.mapping import MapBuilder
from nre_ros.mapping.builder import Keyframe
from nre_ros.mapping.journal import KeyframeJournal
from nre_ros.mapping.sharpness import relative_sharpness, sharpness
from nre_ros.recordings import Frame

CONFIG = with_values(BuilderConfig(), {"points_per_keyframe": 400, "keyframe_motion": 0.0})
SECOND_NS = 10**9


def view(index: float, second: int, blur_px: float = 0) -> Frame:
    frame = ros_world.frame(index, second * SECOND_NS, noise_seed=second)
    return degrade(frame, parse_degradations([f"blur:{blur_px}"])) if blur_px else frame


def chosen(network: FeatureNetwork, frames: list[Frame], config: BuilderConfig = CONFIG) -> list[int]:
    """Seconds of the keyframes."""
    kept: list[Keyframe] = []
    builder = MapBuilder(network, config, keyframes=kept)
    for frame in frames:
        builder.add(frame)
    builder.settle()
    return [keyframe.stamp_ns // SECOND_NS for keyframe in kept]


def test_blur_along_any_direction_is_told_and_exposure_and_noise_are_not() -> None:
    frame = ros_world.frame(0, 0)
    clean = sharpness(frame.image_rgb)
    for stamp in range(8):  # a direction of its own for each
        blurred = degrade(replace(frame, stamp_ns=stamp), parse_degradations(["blur:12"]))
        assert relative_sharpness(sharpness(blurred.image_rgb), clean[None]) < 0.55
    for chain in ("dark:0.4", "exposure:1", "noise:5"):
        changed = degrade(frame, parse_degradations([chain]))
        assert relative_sharpness(sharpness(changed.image_rgb), clean[None]) > 0.8


def test_every_third_frame_blurred_is_refused(network: FeatureNetwork) -> None:
    frames = [view(0.4 * i, i, blur_px=12 if i % 3 == 2 else 0) for i in range(10)]
    assert chosen(network, frames) == [0, 1, 3, 4, 6, 7, 9]
    assert chosen(network, frames, with_values(CONFIG, {"keyframe_sharpness": 0.0})) == list(range(10))


def test_the_sharpest_of_a_place_seen_only_blurred_is_kept(network: FeatureNetwork) -> None:
    """The camera turns to another wall, sees it blurred three times, and turns to where it never was."""
    elsewhere = [ros_world.frame_from(ros_world.around(degrees), 0) for degrees in (-38, -37, -36, 38)]
    blurs = (14, 8, 14, 0)
    seen = [
        degrade(replace(frame, stamp_ns=(3 + i) * SECOND_NS), parse_degradations([f"blur:{blur}"] if blur else []))
        for i, (frame, blur) in enumerate(zip(elsewhere, blurs, strict=True))
    ]
    keyframes = chosen(network, [view(0.4 * i, i) for i in range(3)] + seen)
    assert keyframes[:3] == [0, 1, 2] and keyframes[-1] == 6
    assert set(keyframes) & {3, 4, 5}


def test_what_waits_at_the_end_is_kept(network: FeatureNetwork) -> None:
    frames = [view(0, 0), view(0.5, 1), view(1.0, 2, blur_px=12)]
    assert chosen(network, frames) == [0, 1, 2]
    builder = MapBuilder(network, CONFIG)
    for frame in frames:
        builder.add(frame)
    assert builder.keyframe_count == 2
    assert builder.build().keyframe_count == 3


def test_all_blurred_alike_is_as_sharp_as_it_gets(network: FeatureNetwork) -> None:
    assert chosen(network, [view(0.5 * i, i, blur_px=8) for i in range(5)]) == [0, 1, 2, 3, 4]


def test_an_interrupted_session_decides_alike(network: FeatureNetwork, tmp_path: Path) -> None:
    """What waited is not in the journal, but comes again with the frames after its last keyframe."""
    frames = [view(0.4 * i, i, blur_px=12 if i in (2, 5) else 0) for i in range(7)]
    whole = chosen(network, frames)
    journal = KeyframeJournal(tmp_path / "journal", {})
    builder = MapBuilder(network, CONFIG, keyframes=journal)
    for frame in frames[:3]:
        builder.add(frame)
    journal.close()
    journal = KeyframeJournal(tmp_path / "journal", {})
    builder = MapBuilder(network, CONFIG, keyframes=journal)
    for frame in frames:
        if frame.stamp_ns > journal[-1].stamp_ns:
            builder.add(frame)
    builder.settle()
    assert [keyframe.stamp_ns // SECOND_NS for keyframe in journal] == whole == [0, 1, 3, 4, 6]
    journal.remove()


def test_small_images_have_a_sharpness() -> None:
    assert np.isfinite(sharpness(make_frames(1)[0].image_rgb)).all()
