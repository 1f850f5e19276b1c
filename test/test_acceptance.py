"""Believing a pose: one knob that means something, and a calibration that holds what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_world
import torch
from small_recordings import stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.config import LocalizerConfig, with_values
from nre_ros.errors import ConfigError, RecordingError
from nre_ros.evaluation import acceptance_fit
from nre_ros.evaluation.acceptance_fit import fit_tail
from nre_ros.features import FeatureNetwork
from nre_ros.localization import Localizer
from nre_ros.localization.acceptance import UNSURE_DEG, judge
from nre_ros.localization.calibration import SHIPPED, Calibration, load_calibration, write_calibration
from nre_ros.mapping import load_map
from nre_ros.nre import Estimate, Outcome

RATES = (0.1, 0.01, 1e-3, 1e-5)
FITTED = Calibration("test", 1000, level=0.33, fall=0.19)


def estimate(explained: float, parts: int, landmarks: int = 640, second: float = 0.2, deg: float = 0.05) -> Estimate:
    """``landmarks`` all over the image, of which a share is explained to 60 % in some of its parts, none elsewhere."""
    part = torch.arange(landmarks) % 64
    held = (part < parts) & (torch.arange(landmarks) // 64 < round(explained * landmarks / 64))
    covariance = torch.diag(torch.tensor([np.deg2rad(deg) ** 2 / 3] * 3 + [1e-6] * 3, dtype=torch.float64))
    seen = torch.ones(landmarks, dtype=torch.bool)
    rivalry = torch.tensor([1.0, second])
    return Estimate(Outcome.OK, None, None, rivalry, covariance, None, 0.6 * held, seen, part)


def test_clarity_and_spread_make_up_for_each_other() -> None:
    wide, narrow, clear = (judge(estimate(*of), 1.0, FITTED, 1e-3) for of in ((0.1, 32), (0.1, 4), (0.9, 64)))
    assert wide.accepted and clear.accepted and clear.score > wide.score
    assert not narrow.accepted and "of 64 parts of the image are explained" in narrow.reason
    corner = judge(estimate(0.9, 3), 1.0, FITTED, 0.1)
    assert not corner.accepted and "lie in 3.0 of 64 parts of the image" in corner.reason
    assert clear.support == pytest.approx(0.9 * 0.6 * 64 / 1.2 * np.sqrt(0.8))


def test_what_is_explained_does_not_depend_on_how_many_landmarks_were_asked_about() -> None:
    few, many = (judge(estimate(0.2, 32, landmarks), 1.0, FITTED, 1e-3) for landmarks in (320, 1280))
    assert few.support == pytest.approx(many.support) and few.support > 0


def test_a_stricter_rate_accepts_some_of_the_same_and_no_other() -> None:
    found = [estimate(k / 10, parts) for k in range(1, 11) for parts in range(4, 20)]
    verdicts = [[judge(e, 1.0, FITTED, rate) for e in found] for rate in RATES]
    assert all(v.accepted == (v.score >= 0.5) and 0 <= v.score <= 1 for some in verdicts for v in some)
    accepted = [{i for i, v in enumerate(some) if v.accepted} for some in verdicts]
    assert all(stricter < looser for looser, stricter in pairwise(accepted))


def test_an_ambiguous_or_unsure_pose_is_no_answer_however_good_it_looks() -> None:
    twin = judge(estimate(0.9, 64, second=0.99), 1.0, FITTED, 0.1)
    assert not twin.accepted and twin.ambiguous and "99 %" in twin.reason
    unsure = judge(estimate(0.9, 64, deg=1.01 * UNSURE_DEG), 1.0, FITTED, 0.1)
    assert not unsure.accepted and not unsure.ambiguous and "rotation is uncertain" in unsure.reason
    poor = judge(estimate(0.1, 4, second=0.99), 1.0, FITTED, 1e-3)
    assert not poor.ambiguous, "the other pose is not all that speaks against it"


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_fitted_rate_holds_for_images_that_were_not_fitted_to(power: float) -> None:
    """Conservative for tails that fall as the model's does, and for those that fall faster."""
    rng = np.random.default_rng(0)
    drawn, fresh = (rng.exponential(size=count) ** (1 / power) for count in (1000, 200_000))
    fitted = fit_tail(drawn.tolist(), "test")
    for rate in (0.03, 0.01, 0.003):
        accepted = float(np.mean(fresh >= fitted.least_support(rate)))
        assert 0 < accepted < 1.2 * rate
    with pytest.raises(RecordingError, match="too few to calibrate by"):
        fit_tail(drawn[:20].tolist(), "test")
    with pytest.raises(RecordingError, match="all alike"):
        fit_tail([0.0] * 1000, "test")


def test_a_calibration_survives_its_file_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    write_calibration(SHIPPED, file)
    assert load_calibration(str(file)) == SHIPPED == load_calibration("")
    told = json.loads(file.read_text())
    for damaged in ("", "3", json.dumps(told | {"fall": 0.0}), json.dumps(told | {"level": "high"})):
        file.write_text(damaged)
        with pytest.raises(ConfigError, match=r"accept\.calibration"):
            load_calibration(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_calibration(str(tmp_path / "missing.json"))


def test_the_shipped_one_is_of_the_shipped_weights(network: FeatureNetwork) -> None:
    assert not SHIPPED.remark(network.weights_hash)
    assert "run nre_ros calibrate" in replace(SHIPPED, network="another").remark(network.weights_hash)


def test_a_map_is_calibrated_and_asked(
    corner_path: Path,
    network: FeatureNetwork,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With fewer photos, of blots, than count in earnest."""
    monkeypatch.setattr(acceptance_fit, "FEWEST", 8)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(8):
        blots = cv2.GaussianBlur(rng.integers(0, 256, (160, 160, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), cv2.normalize(blots, None, 0, 255, cv2.NORM_MINMAX))
    view = ros_world.frame(2.6, stamp_ns(0), noise_seed=1)
    corner, output = write_tum(tmp_path / "corner", [view]), tmp_path / "site.json"
    words = ["calibrate", "--place", str(corner), str(corner_path), "--photos", str(tmp_path / "photos")]
    words += ["-o", str(output), *(w for n, v in ros_world.QUICK.items() for w in ("--set", f"{n}={v}"))]
    assert main(words) == 0
    assert "1 of 1" in capsys.readouterr().out, "the corner's own view is right"
    found = load_calibration(str(output))
    assert (found.network, found.images) == (network.weights_hash, 8)
    values = {"accept.calibration": str(output), "accept.false_accept_rate": 0.1, **ros_world.QUICK}
    localizer = Localizer(load_map(corner_path, network), network, with_values(LocalizerConfig(), values))
    answer = localizer.localize(view.image_rgb, view.camera)
    assert answer.accepted and answer.support >= found.level
    write_calibration(replace(found, network="another"), output)
    quick = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    words = ["localize", str(corner), "--map", str(corner_path), *quick]
    assert main(words) == 0 and "measured with the weights another" in capsys.readouterr().err
