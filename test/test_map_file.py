"""Maps on disk: what was saved comes back, what was damaged is refused in one sentence, a good map is never lost."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from nre_ros.errors import MapError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.mapping import Map, check_network, load_map, map_file, save_map
from nre_ros.mapping.map import MapArrays, array_digest
from nre_ros.mapping.map_file import FILE_NAME, check_map

CAMERAS = (
    Camera(320, 240, 260.0, 261.0, 159.25, 119.75, distortion=(0.1, -0.05, 0.001, 0.002, 0.01)),
    Camera(640, 480, 300.0, 300.0, 319.5, 239.5, DistortionModel.EQUIDISTANT, (0.01, 0.002, 0.0, 0.0)),
)


def small_map(seed: int = 0, landmarks: int = 30) -> Map:
    rng = torch.Generator().manual_seed(seed)
    observations = 3 * landmarks

    def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    def small_bytes(*shape: int) -> torch.Tensor:
        return torch.randint(-127, 128, shape, generator=rng).to(torch.int8)

    arrays = MapArrays(
        xyz_map=normal(landmarks, 3),
        coarse=small_bytes(landmarks, 4),
        coarse_scale=normal(landmarks, dtype=torch.float32).abs(),
        fine=small_bytes(landmarks, 2),
        fine_scale=normal(landmarks, dtype=torch.float32).abs(),
        keyframe_pose=Pose.exp(normal(3, 6)).matrix(),
        keyframe_stamp_ns=torch.tensor(
            [1_700_000_000_000_000_001, 1_700_000_000_100_000_002, 1_700_000_001_000_000_003]
        ),
        keyframe_camera=torch.tensor([0, 1, 0], dtype=torch.int32),
        keyframe_start=torch.tensor([0, landmarks, 2 * landmarks, observations]),
        keyframe_global=normal(3, 8, dtype=torch.float16),
        context_axes=normal(6, 4, dtype=torch.float32),
        vocabulary=normal(2, 4, dtype=torch.float32),
        landmark=torch.arange(landmarks, dtype=torch.int32).repeat(3),
        uv_px=normal(observations, 2, dtype=torch.float32),
    )
    return Map("building", "arbitrary", "compact", "0123456789abcdef", CAMERAS, arrays)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_map(small_map(), tmp_path / "map")
    return tmp_path / "map"


def assert_same_map(actual: Map, expected: Map) -> None:
    for name in ("frame_id", "unit", "network_name", "network_hash", "cameras", "digest"):
        assert getattr(actual, name) == getattr(expected, name)
    for item in dataclasses.fields(MapArrays):
        one, other = getattr(actual.arrays, item.name), getattr(expected.arrays, item.name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), item.name


def refusal(folder: Path) -> str:
    with pytest.raises(MapError) as caught:
        load_map(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, **metadata: object) -> None:
    """Write the map's file anew with other metadata: well formed, but not what was saved."""
    file = folder / FILE_NAME
    size = int.from_bytes(file.read_bytes()[:8], "little")
    old = json.loads(json.loads(file.read_bytes()[8 : 8 + size])["__metadata__"]["nre_ros"])
    arrays = {name: array.clone() for name, array in load_file(file).items()}
    save_file(arrays, file, metadata={"nre_ros": json.dumps({**old, **metadata})})


def test_round_trip(saved: Path) -> None:
    assert_same_map(load_map(saved), small_map())


def test_round_trip_of_a_real_map(corner_map: Map, tmp_path: Path) -> None:
    save_map(corner_map, tmp_path)
    assert_same_map(load_map(tmp_path), corner_map)


def test_digest_names_the_content() -> None:
    assert small_map().digest == small_map().digest
    assert small_map(1).digest != small_map().digest
    assert dataclasses.replace(small_map(), unit="metre").digest != small_map().digest


def test_a_landmark_takes_at_most_512_bytes(corner_map: Map, corner_path: Path) -> None:
    """With everything: its observations, the keyframes, the vocabulary."""
    assert (corner_path / FILE_NAME).stat().st_size <= 512 * corner_map.landmark_count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_arrays_are_memory_mapped(saved: Path) -> None:
    file = str(saved / FILE_NAME)
    map_ = load_map(saved)
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if file in line]
    address = map_.arrays.coarse.data_ptr()
    assert any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


def test_a_loaded_map_outlives_its_replacement(saved: Path) -> None:
    loaded = load_map(saved)
    save_map(small_map(1, landmarks=3), saved)
    assert_same_map(loaded, small_map())
    assert_same_map(load_map(saved), small_map(1, landmarks=3))


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "nothing", tmp_path / "empty"):
        assert f"no map at {folder}" in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    file = saved / FILE_NAME
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert "truncated or damaged" in refusal(saved)


def test_any_altered_byte_is_refused(saved: Path) -> None:
    """Anywhere: the header's length, its JSON, its metadata, the arrays. White space that stays such may pass."""
    file = saved / FILE_NAME
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = torch.Generator().manual_seed(0)
    in_header = range(header)
    in_arrays = torch.randint(header, len(data), (100,), generator=rng).tolist()
    for position in (*in_header, *in_arrays):
        altered = bytearray(data)
        altered[position] ^= 1 << int(torch.randint(0, 7, (1,), generator=rng))
        file.write_bytes(altered)
        refusal(saved)


def test_altered_metadata_is_refused(saved: Path) -> None:
    rewrite(saved, frame_id="somewhere else")
    assert "altered" in refusal(saved)


@pytest.mark.parametrize(
    "cameras", [[], [{"width": 0}], 3, [vars(CAMERAS[0]) | {"model": "plumb_bob", "fx": -1.0}] * 2]
)
def test_impossible_cameras_are_refused(saved: Path, cameras: object) -> None:
    rewrite(saved, cameras=cameras)
    refusal(saved)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_version_is_refused(saved: Path, version: object) -> None:
    rewrite(saved, format_version=version)
    assert f"format version {version}, this nre_ros reads 2" in refusal(saved)


def test_a_file_that_is_no_map_is_refused(saved: Path) -> None:
    save_file({"a": torch.zeros(3)}, saved / FILE_NAME)
    assert "no map of nre_ros" in refusal(saved)


def test_another_network_is_refused(saved: Path) -> None:
    made = SimpleNamespace(name="compact", weights_hash="0123456789abcdef")
    assert load_map(saved, made).network_hash == made.weights_hash
    for other in (
        SimpleNamespace(name="compact", weights_hash="f" * 16),
        SimpleNamespace(name="big", weights_hash="0"),
    ):
        with pytest.raises(MapError, match=r"was made by network compact \(0123456789abcdef\)"):
            load_map(saved, other)
        with pytest.raises(MapError, match=f"but {other.name} "):
            check_network(small_map(), other)


def damaged(**arrays: torch.Tensor) -> Map:
    return dataclasses.replace(small_map(), arrays=dataclasses.replace(small_map().arrays, **arrays))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("xyz_map", torch.zeros((30, 3), dtype=torch.float32)),
        ("xyz_map", torch.zeros((0, 3), dtype=torch.float64)),
        ("keyframe_start", torch.tensor([0, 60, 30, 90])),
        ("keyframe_start", torch.tensor([0, 30, 60, 91])),
        ("coarse", torch.zeros((29, 4), dtype=torch.int8)),
        ("coarse", torch.zeros((30, 4), dtype=torch.float16)),
        ("fine_scale", torch.zeros((30, 1), dtype=torch.float32)),
        ("keyframe_global", torch.zeros((3, 7), dtype=torch.float16)),
        ("context_axes", torch.zeros((6, 3), dtype=torch.float32)),
    ],
)
def test_arrays_whose_sizes_contradict_each_other_make_no_map(name: str, array: torch.Tensor) -> None:
    with pytest.raises(MapError):
        damaged(**{name: array})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("xyz_map", torch.full((30, 3), torch.nan, dtype=torch.float64)),
        ("coarse_scale", torch.full((30,), torch.inf, dtype=torch.float32)),
        ("keyframe_global", torch.full((3, 8), torch.nan, dtype=torch.float16)),
        ("landmark", torch.full((90,), 30, dtype=torch.int32)),
        ("landmark", torch.full((90,), -1, dtype=torch.int32)),
        ("keyframe_camera", torch.tensor([0, 1, 2], dtype=torch.int32)),
    ],
)
def test_what_leads_nowhere_or_is_not_finite_is_never_written(saved: Path, name: str, array: torch.Tensor) -> None:
    with pytest.raises(MapError, match=f"array {name} "):
        save_map(damaged(**{name: array}), saved)
    assert_same_map(load_map(saved), small_map())


def array_range(file: Path, name: str) -> range:
    """Where an array lies in the file, bytes."""
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    first, end = json.loads(data[8:header])[name]["data_offsets"]
    return range(header + first, header + end)


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(MapArrays)])
def test_check_map_tells_which_array_was_altered_however_large(
    saved: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays over the limit are not hashed at load, so that large maps load at once: here none is."""
    monkeypatch.setattr(map_file, "HASHED_AT_LOAD", 0)
    file = saved / FILE_NAME
    assert_same_map(check_map(saved), small_map())
    with file.open("r+b") as opened:
        opened.seek(array_range(file, name)[0])
        byte = opened.read(1)[0]
        opened.seek(-1, 1)
        opened.write(bytes([byte ^ 1]))
    with pytest.raises(MapError, match=f"array {name} |contradict"):
        check_map(saved)


def test_loading_reads_no_large_array(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_file, "HASHED_AT_LOAD", 100)
    hashed = []
    monkeypatch.setattr(map_file, "array_digest", lambda array: hashed.append(array.numel()) or array_digest(array))
    load_map(saved)
    assert 0 < max(hashed) <= 100


def test_a_map_overwritten_in_place_is_not_read_any_more(saved: Path, tmp_path: Path) -> None:
    """By cp, which truncates: reading on would kill the process. Renaming over it is no such thing."""
    save_map(small_map(1), tmp_path / "other")
    loaded = load_map(saved)
    loaded.check_file()
    save_map(small_map(2), saved)
    loaded.check_file()
    again = load_map(saved)
    shutil.copyfile(tmp_path / "other" / FILE_NAME, saved / FILE_NAME)
    loaded.check_file()
    with pytest.raises(MapError, match="overwritten while in use"):
        again.check_file()
    load_map(saved).check_file()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_file_stays_open_after_its_map(saved: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        load_map(saved)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_unwritable_target_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, where a folder must be")
    for target in (tmp_path / "file", tmp_path / "file" / "map"):
        with pytest.raises(MapError, match="cannot be written"):
            save_map(small_map(), target)
    assert (tmp_path / "file").read_text() == "a file, where a folder must be"


def test_a_failing_write_leaves_the_old_map(saved: Path) -> None:
    """The disk is full, as far as this process can tell."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(MapError, match="cannot be written"):
            save_map(small_map(1, landmarks=3000), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same_map(load_map(saved), small_map())
    assert [path.name for path in saved.iterdir()] == [FILE_NAME]
