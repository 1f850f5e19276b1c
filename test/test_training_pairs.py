"""Points of a pair are the same thing in both images, whatever kind the pair is of."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_scenes import colours, coordinate_photo, small_config, texture, write_cameras, write_colmap, write_photos

from nre_ros.errors import RecordingError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.recordings.colmap_model import read_model
from nre_ros.recordings.compressed import encode_png
from nre_ros.simulation import World
from nre_ros.simulation.lighting import Lamp
from nre_ros.simulation.materials import Material
from nre_ros.simulation.surfaces import panel
from nre_ros.simulation.world import pack_world
from nre_ros.training.config import PairConfig
from nre_ros.training.data import split_photos
from nre_ros.training.mixture import Mixture
from nre_ros.training.pairs import Pair, make_batch
from nre_ros.training.photometric import EXTREME, MILD, STRONG, Strength, degrade, occlude
from nre_ros.training.photos import PhotoPairs, find_photos
from nre_ros.training.posed import PosedPairs, colmap_scene
from nre_ros.training.rendered import rendered_pair, reproject
from nre_ros.training.warps import View, Waves, similarity, tilt, transform

PAIRS = small_config().pairs


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("warp_share", [0.0, 1.0])
def test_points_of_a_photo_pair_show_the_same_place_of_the_photo(warp_share: float) -> None:
    source = PhotoPairs([encode_png(coordinate_photo())], small_config(pairs__warp_share=warp_share).pairs)
    apart = []
    for seed in range(10):
        pair = source.draw(rng_of(seed), 128, 96)
        if pair is not None:
            assert pair.image_a.shape == pair.image_b.shape == (96, 128, 3)
            apart.append(np.abs(colours(pair.image_a, pair.uv_a_px) - colours(pair.image_b, pair.uv_b_px)).max(1))
    assert len(apart) >= 8
    # a level is a pixel of the photo; reading and rounding cost some tenths, smoothing more at the photo's rim alone
    assert np.quantile(np.concatenate(apart), 0.95) < 0.8


def test_view_shows_the_photo_where_it_says() -> None:
    rng = rng_of(1)
    matrix = similarity(np.array([120.0, 90.0]), 0.9, 0.3, 128, 96) @ tilt(rng, 0.1, 128, 96)
    view = View(matrix, 128, 96, Waves.draw(rng, 128))
    uv = rng.uniform(5, 90, (200, 2))
    assert np.abs(colours(view.render(coordinate_photo()), uv)[:, :2] - view.to_photo(uv)).max() < 0.8


def test_homographies_have_their_inverse() -> None:
    rng = rng_of(2)
    view = View(similarity(np.array([50.0, 60.0]), 1.3, -0.6, 128, 96) @ tilt(rng, 0.16, 128, 96), 128, 96)
    uv = rng.uniform(0, 90, (50, 2))
    np.testing.assert_allclose(view.from_photo(view.to_photo(uv)), uv, atol=1e-9)
    np.testing.assert_allclose(transform(np.eye(3), uv), uv)


def test_crop_centre_lies_on_the_place_asked_for() -> None:
    matrix = similarity(np.array([70.0, 33.0]), 2.0, 0.4, 128, 96)
    np.testing.assert_allclose(transform(matrix, np.array([[63.5, 47.5]])), [[70.0, 33.0]], atol=1e-9)


def test_waves_do_not_fold() -> None:
    u, v = np.meshgrid(np.arange(0, 320, 2.0), np.arange(0, 224, 2.0))
    for seed in range(50):
        moved = np.stack([u, v], -1) + Waves.draw(rng_of(seed), 320).shift(np.stack([u, v], -1))
        du, dv = np.diff(moved, axis=1)[:-1] / 2, np.diff(moved, axis=0)[:, :-1] / 2
        assert (du[..., 0] * dv[..., 1] - du[..., 1] * dv[..., 0]).min() > 0.1


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colmap(tmp_path_factory.mktemp("colmap") / "corner")


def test_colmap_points_project_to_where_they_were_seen(corner: Path) -> None:
    model = read_model(corner / "sparse")
    assert [image.name for image in model.images] == [f"{i}.png" for i in range(5)]
    for image in model.images:
        assert len(image.point) > 100
        xyz_cam = image.cam_from_world.transform(torch.from_numpy(model.xyz_of(image.point)))
        np.testing.assert_allclose(image.camera.project(xyz_cam)[0].numpy(), image.uv_px, atol=1e-6)


@pytest.mark.parametrize("place", ["sparse/0", "."])
def test_a_model_is_found_where_colmap_puts_it(corner: Path, tmp_path: Path, place: str) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(corner / "images", scene / "images")
    shutil.copytree(corner / "sparse", scene / place, dirs_exist_ok=True)
    found = colmap_scene(scene, PAIRS)
    assert [image.source for image in found.images] == [scene / "images" / f"{i}.png" for i in range(5)]
    for image in found.images:
        uv_px, _ = image.camera.project(image.cam_from_scene.transform(torch.from_numpy(image.xyz)))
        np.testing.assert_allclose(uv_px.numpy(), image.uv_px, atol=1e-6)


def test_points_of_a_colmap_pair_look_alike(corner: Path) -> None:
    source = PosedPairs([colmap_scene(corner, PAIRS)], PAIRS)
    pairs = [source.draw(rng_of(seed), 192, 160) for seed in range(12)]
    apart, by_chance = [], []
    for pair in pairs:
        if pair is not None:
            a, b = colours(pair.image_a, pair.uv_a_px), colours(pair.image_b, pair.uv_b_px)
            apart.append(np.abs(a - b).mean(1))
            by_chance.append(np.abs(a - b[::-1]).mean(1))
    assert len(apart) >= 8
    assert np.median(np.concatenate(apart)) < 4 < 20 < np.median(np.concatenate(by_chance))


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (0, (500, 320, 240), Camera(640, 480, 500, 500, 320, 240)),
        (1, (500, 510, 320, 240), Camera(640, 480, 500, 510, 320, 240)),
        (2, (500, 320, 240, 0.1), Camera(640, 480, 500, 500, 320, 240, distortion=(0.1,))),
        (3, (500, 320, 240, 0.1, 0.2), Camera(640, 480, 500, 500, 320, 240, distortion=(0.1, 0.2))),
        (
            4,
            (500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4),
            Camera(640, 480, 500, 510, 320, 240, distortion=(0.1, 0.2, 0.3, 0.4)),
        ),
        (
            5,
            (500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4),
            Camera(640, 480, 500, 510, 320, 240, DistortionModel.EQUIDISTANT, (0.1, 0.2, 0.3, 0.4)),
        ),
        (
            6,
            (500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
            Camera(
                640, 480, 500, 510, 320, 240, DistortionModel.RATIONAL, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
            ),
        ),
        (
            8,
            (500, 320, 240, 0.1),
            Camera(640, 480, 500, 500, 320, 240, DistortionModel.EQUIDISTANT, (0.1,)),
        ),
    ],
)  # fmt: skip
def test_colmap_camera_models(
    corner: Path, tmp_path: Path, model: int, values: tuple[float, ...], expected: Camera
) -> None:
    sparse = Path(shutil.copytree(corner / "sparse", tmp_path / "sparse"))
    write_cameras(sparse / "cameras.bin", [(1, model, expected, values)])
    assert read_model(sparse).images[0].camera == expected


def test_unknown_camera_models_are_left_out(corner: Path, tmp_path: Path) -> None:
    sparse = Path(shutil.copytree(corner / "sparse", tmp_path / "sparse"))
    write_cameras(sparse / "cameras.bin", [(1, 7, Camera(640, 480, 500, 500, 320, 240), (500, 500, 320, 240, 0.9))])
    with pytest.raises(RecordingError, match="no image with a camera model"):
        read_model(sparse)


def test_cut_off_model_is_told(corner: Path, tmp_path: Path) -> None:
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        sparse = Path(shutil.copytree(corner / "sparse", tmp_path / name))
        data = (sparse / name).read_bytes()
        (sparse / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(RecordingError, match=r"COLMAP model .* is cut off or damaged"):
            read_model(sparse)


def test_real_colmap_model(shared_data: Path) -> None:
    scene = read_model(shared_data / "data/train/multiview/frei/sparse")
    image = scene.images[0]
    xyz_cam = image.cam_from_world.transform(torch.from_numpy(scene.xyz_of(image.point)))
    off_px = np.linalg.norm(image.camera.project(xyz_cam)[0].numpy() - image.uv_px, axis=1)
    assert np.median(off_px) < 1.0
    assert (image.camera.cx, image.camera.cy) == (319.5, 239.5)


CAMERA = Camera(96, 64, 80.0, 80.0, 47.5, 31.5)


def moved_right(metres: float) -> Pose:
    return Pose(torch.eye(3, dtype=torch.float64), torch.tensor([-metres, 0.0, 0.0], dtype=torch.float64))


def test_depth_tells_where_pixels_are_in_the_other_view() -> None:
    uv = np.array([[20.0, 30.0], [60.0, 10.0], [70.0, 50.0]])
    depth = np.array([2.0, 4.0, np.inf])
    wall = np.full((64, 96), 4.0, np.float32)
    wall[:, :30] = 2.0
    seen, hidden = reproject(uv, depth, wall, CAMERA, moved_right(0.1))
    np.testing.assert_allclose(seen[:2], [[16.0, 30.0], [58.0, 10.0]])
    assert hidden.tolist() == [False, False, True]


def test_what_something_nearer_covers_is_hidden() -> None:
    uv, depth = np.array([[20.0, 30.0]]), np.array([4.0])
    cover: np.ndarray = np.full((64, 96), 4.0, np.float32)
    assert not reproject(uv, depth, cover, CAMERA, moved_right(0.1))[1]
    cover[:, 10:26] = 1.0
    assert reproject(uv, depth, cover, CAMERA, moved_right(0.1))[1]


def facing_wall() -> World:
    """A wall 4 m wide, whose paint tells where it is."""
    sheet = cv2.resize(np.ascontiguousarray(coordinate_photo(250, 250)), (500, 500))
    wall = panel(rng_of(0), Material(sheet, 0.008), (-2, 0, 2), (4, 0, 0), (0, 0, -4))
    lamp = Lamp(np.array([0, -3.0, 0]), np.array([0.1, 0, 0]), np.array([0, 0, 0.1]), (1.0, 1.0, 1.0), None)
    return pack_world([wall], [lamp], [wall])


def test_rendered_points_show_the_same_place() -> None:
    # looking along +y at the wall from 2 m
    rotation = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], dtype=torch.float64)
    first = Pose(rotation, torch.tensor([0.0, -2.0, 0.0], dtype=torch.float64))
    turn = Pose.exp(torch.tensor([0.05, 0.1, 0.2, 0.2, 0.1, 0.3], dtype=torch.float64))
    second = first @ turn
    pair = rendered_pair(facing_wall(), CAMERA, first, second, rng_of(3), PAIRS)
    assert pair is not None
    on_wall = []
    for pose, uv in ((first, pair.uv_a_px), (second, pair.uv_b_px)):
        rays = CAMERA.unproject(torch.from_numpy(uv.astype(np.float64))) @ pose.rotation.T
        on_wall.append(pose.translation - rays * (pose.translation[1] / rays[:, 1:2]))
    torch.testing.assert_close(on_wall[0], on_wall[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("strength", "limit_px"), [(MILD, 0.2), (STRONG, 0.5), (EXTREME, 1.0)])
def test_light_and_sensor_move_nothing(strength: Strength, limit_px: float) -> None:
    before = texture(5)
    window = cv2.createHanningWindow((256, 200), cv2.CV_64F)
    moves = []
    for seed in range(16):
        after = degrade(before, rng_of(seed), strength)
        assert after.shape == before.shape and after.dtype == np.uint8
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (before, after)]
        moves.append(cv2.phaseCorrelate(grey[0], grey[1], window)[0])
    assert np.abs(np.median(moves, axis=0)).max() < 0.15
    assert np.median(np.linalg.norm(moves, axis=1)) < limit_px  # noise blinds the phases, too


def test_extreme_is_darker_than_mild() -> None:
    level = [np.median([degrade(texture(5), rng_of(s), kind).mean() for s in range(9)]) for kind in (MILD, EXTREME)]
    assert level[1] < 0.6 * level[0]


def test_points_behind_occluders_are_dropped() -> None:
    image = texture(6)
    uv = np.stack(np.meshgrid(np.arange(0, 256, 8), np.arange(0, 200, 8)), -1).reshape(-1, 2).astype(np.float32)
    for seed in range(6):
        left = occlude(Pair(image, image, uv, uv), rng_of(seed))
        assert len(left.uv_a_px) < len(uv)
        for pasted, kept in ((left.image_a, left.uv_a_px), (left.image_b, left.uv_b_px)):
            column, row = kept.astype(int).T
            np.testing.assert_array_equal(pasted[row, column], image[row, column])


def test_batches_pad_and_their_windows_hold_the_points() -> None:
    image = texture(7)
    uv = rng_of(0).uniform(0, 190, (10, 2)).astype(np.float32)
    few, many = Pair(image, image, uv[:3], uv[:3] + 1), Pair(image, image, uv, uv + 1)
    batch = make_batch([few, many], 8, 5.0, rng_of(1))
    assert batch.images.shape == (4, 3, 200, 256)
    assert batch.weight.sum(1).tolist() == [3, 8]
    assert float((batch.window_px - batch.uv_px).abs().max()) <= 5.0
    kept = batch.weight.bool()
    torch.testing.assert_close(batch.uv_px[2:][kept], batch.uv_px[:2][kept] + 1)
    np.testing.assert_array_equal(batch.images[3].permute(1, 2, 0).numpy(), image)


def test_a_batch_is_a_function_of_its_number() -> None:
    config = small_config()
    mixtures = [Mixture({"photos": PhotoPairs([encode_png(texture(1))], config.pairs)}, config) for _ in range(2)]
    first = mixtures[0][3]
    mixtures[1][2]
    assert torch.equal(first.images, mixtures[1][3].images) and torch.equal(first.uv_px, mixtures[1][3].uv_px)
    assert not torch.equal(first.images, mixtures[1][4].images)


def test_corrupt_photos_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 3)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:5000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "tiny.png").write_bytes(encode_png(texture(9, 20, 20)))
    (folder / "notes.txt").write_text("not a photo")
    config = small_config()
    mixture = Mixture({"photos": PhotoPairs(find_photos([folder]), config.pairs)}, config)
    met = {Path(name).name for number in range(12) for name in mixture[number].corrupt}
    assert met == {"cut.png", "empty.jpg", "tiny.png"}


def test_a_folder_of_corrupt_photos_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    config = small_config()
    mixture = Mixture({"photos": PhotoPairs(find_photos([tmp_path]), config.pairs)}, config)
    with pytest.raises(RecordingError, match="1 files are unreadable"):
        mixture[0]


@pytest.mark.parametrize("name", ["", "missing"])
def test_empty_and_missing_folders_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"holds no JPEG or PNG|does not exist"):
        find_photos([tmp_path / name])


def test_scene_without_overlap_is_told(corner: Path) -> None:
    with pytest.raises(RecordingError, match=r"no two of the 5 images .* see 9999 common points"):
        colmap_scene(corner, PairConfig(min_points=9999))


def test_photos_stay_on_their_side_of_the_split(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.jpg" for i in range(400)]
    kept, apart = split_photos(files, 0.1)
    assert 15 < len(apart) < 70 and not set(kept) & set(apart)
    assert set(split_photos(files[:50], 0.1)[1]) <= set(apart)
