"""Loss maps are what Eq. 5 to 7 say, truncated; windows hold the coarse map's mass; reading fades at the border."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nre_ros.geometry import CellGrid
from nre_ros.nre import LossMaps, coarse_loss_maps, fine_loss_maps
from nre_ros.nre.loss_maps import find_peaks, window_mass

GRID = CellGrid(8, 3.5)
FINE_GRID = CellGrid(2, 0.5)
WIDTH, HEIGHT, CHANNELS = 17, 11, 6


def unit(*shape: int, seed: int = 0, dim: int = 1) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def random_maps(points: int = 12, inverse_temperature: float = 8.0) -> LossMaps:
    return coarse_loss_maps(
        unit(points, CHANNELS), unit(CHANNELS, HEIGHT, WIDTH, seed=1, dim=0), inverse_temperature, GRID
    )


def test_coarse_maps_are_the_truncated_softmax() -> None:
    descriptors, features = unit(5, CHANNELS), unit(CHANNELS, HEIGHT, WIDTH, seed=1, dim=0)
    maps = coarse_loss_maps(descriptors, features, 8.0, GRID)
    assert maps.ceiling == pytest.approx(math.log(WIDTH * HEIGHT + 1))
    assert maps.image_cells == (WIDTH, HEIGHT)
    truncated = 0
    for n in range(5):
        scores = [
            math.exp(8.0 * float(descriptors[n] @ features[:, y, x])) for y in range(HEIGHT) for x in range(WIDTH)
        ]
        for cell, score in enumerate(scores):
            loss = min(maps.ceiling, -math.log(score / sum(scores)))
            truncated += loss == maps.ceiling
            gain = float(maps.gain[n, cell // WIDTH, cell % WIDTH])
            assert gain == pytest.approx(maps.ceiling - loss, abs=1e-4)
    assert 0 < truncated < 5 * WIDTH * HEIGHT


def test_a_descriptor_unlike_all_cells_alike_says_nothing() -> None:
    """Uniform over |Omega| - 1 cells: a hair below the ceiling everywhere."""
    maps = coarse_loss_maps(torch.zeros(2, CHANNELS), unit(CHANNELS, HEIGHT, WIDTH, dim=0), 8.0, GRID)
    expected = math.log(WIDTH * HEIGHT + 1) - math.log(WIDTH * HEIGHT)
    torch.testing.assert_close(maps.gain, torch.full_like(maps.gain, expected), atol=1e-5, rtol=0)


def test_gradients_flow_through_coarse_maps() -> None:
    """To descriptors, features and temperature; none through truncated cells."""
    descriptors = unit(4, CHANNELS).double().requires_grad_()
    features = unit(CHANNELS, 4, 5, seed=1, dim=0).double().requires_grad_()
    temperature = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda d, f, t: coarse_loss_maps(d, f, t, GRID).gain, (descriptors, features, temperature)
    )
    maps = coarse_loss_maps(descriptors, features, temperature, GRID)
    truncated = maps.gain == 0
    assert bool(truncated.any())
    (slope,) = torch.autograd.grad((maps.gain * truncated).sum(), features)
    assert not bool(slope.any())


def fine_case(window: int) -> tuple[LossMaps, Tensor, Tensor, Tensor, Tensor]:
    """Windows inside, over each edge, over a corner, beyond the image, and of no position at all."""
    nan = math.nan
    centre_px = torch.tensor(
        [[15.0, 10.0], [0.0, 9.0], [33.0, 11.0], [14.0, 0.0], [33.0, 21.0], [900.0, 5.0], [nan, nan]]
    )
    count = len(centre_px)
    descriptors, features = unit(count, CHANNELS), unit(CHANNELS, HEIGHT, WIDTH, seed=1, dim=0)
    mass = torch.linspace(0.2, 1.0, count)
    maps = fine_loss_maps(descriptors, features, 12.0, FINE_GRID, centre_px, mass, window)
    return maps, descriptors, features, centre_px, mass


@pytest.mark.parametrize("window", [4, 8, 16])
def test_fine_maps_are_the_prior_mass_times_the_softmax_over_cells_on_the_image(window: int) -> None:
    maps, descriptors, features, centre_px, mass = fine_case(window)
    size = window + 1
    assert maps.gain.shape == (7, size, size)
    assert maps.ceiling == pytest.approx(math.log(WIDTH * HEIGHT + 1))
    for n in range(5):
        first = [round((float(v) - 0.5) / 2) - window // 2 for v in centre_px[n]]
        assert maps.origin_cells[n].tolist() == first
        cells = [(x, y) for y in range(first[1], first[1] + size) for x in range(first[0], first[0] + size)]
        on_image = [(x, y) for x, y in cells if 0 <= x < WIDTH and 0 <= y < HEIGHT]
        score = {(x, y): math.exp(12.0 * float(descriptors[n] @ features[:, y, x])) for x, y in on_image}
        for i, cell in enumerate(cells):
            gain = float(maps.gain[n, i // size, i % size])
            if cell in score:
                density = float(mass[n]) * score[cell] / sum(score.values())
                assert gain == pytest.approx(max(0.0, maps.ceiling + math.log(density)), abs=1e-4)
            else:
                assert gain == 0
    assert not bool(maps.gain[5:].any())


def test_windows_without_mass_have_no_gain() -> None:
    descriptors, features = unit(3, CHANNELS), unit(CHANNELS, HEIGHT, WIDTH, seed=1, dim=0)
    centre_px = torch.full((3, 2), 10.0)
    maps = fine_loss_maps(descriptors, features, 12.0, FINE_GRID, centre_px, torch.zeros(3), 8)
    assert not bool(maps.gain.any())


@pytest.mark.parametrize("half_px", [3.0, 4.0, 17.0, 200.0])
def test_window_mass_is_the_sum_of_the_cells_covered(half_px: float) -> None:
    maps = random_maps()
    rng = torch.Generator().manual_seed(2)
    centre_px = torch.rand((len(maps), 2), generator=rng) * torch.tensor([WIDTH * 8.0, HEIGHT * 8.0])
    centre_px[0] = torch.tensor([0.0, 0.0])
    mass = window_mass(maps, centre_px[None], half_px)[0]
    probability = torch.where(maps.gain > 0, (maps.gain - maps.ceiling).exp(), 0.0)
    for n in range(len(maps)):
        expected = 0.0
        for y in range(HEIGHT):
            for x in range(WIDTH):
                share = 1.0
                for cell, centre in ((x, centre_px[n, 0]), (y, centre_px[n, 1])):
                    low, high = cell * 8 - 0.5, cell * 8 + 7.5
                    covered = min(high, float(centre) + half_px) - max(low, float(centre) - half_px)
                    share *= max(0.0, covered) / 8
                expected += share * float(probability[n, y, x])
        assert float(mass[n]) == pytest.approx(expected, abs=1e-5)


def test_the_whole_image_holds_all_mass_and_nowhere_none() -> None:
    maps = random_maps(inverse_temperature=40.0)
    everywhere = window_mass(maps, torch.full((len(maps), 2), 50.0), 500.0)
    assert bool((everywhere > 0.95).all() and (everywhere < 1 + 1e-5).all())
    outside = torch.tensor([[-500.0, 20.0]] * (len(maps) - 1) + [[math.nan, math.nan]])
    assert not bool(window_mass(maps, outside, 20.0).any())


def test_reading_is_bilinear_and_fades_over_one_cell_beyond_the_border() -> None:
    maps = random_maps(points=1)
    padded = torch.nn.functional.pad(maps.gain[0], (3, 3, 3, 3))
    xy = 3 * torch.randn((400, 1, 2), generator=torch.Generator().manual_seed(0)) + torch.tensor([8.0, 5.0])
    xy = xy.clamp(torch.tensor([-2.5, -2.5]), torch.tensor([WIDTH + 1.5, HEIGHT + 1.5]))
    for position, gain in zip(xy[:, 0].tolist(), maps.read(xy)[:, 0].tolist(), strict=True):
        x, y = (v + 3 for v in position)
        column, row, a, b = int(x), int(y), x - int(x), y - int(y)
        corner = padded[row : row + 2, column : column + 2]
        expected = (1 - b) * ((1 - a) * corner[0, 0] + a * corner[0, 1]) + b * (
            (1 - a) * corner[1, 0] + a * corner[1, 1]
        )
        assert gain == pytest.approx(float(expected), abs=1e-4)


def test_peaks_are_the_best_cells_refined_by_their_neighbours() -> None:
    """A bump between two cells, one in a corner, and a map that says nothing."""
    ceiling = math.log(WIDTH * HEIGHT + 1)
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    truth = torch.tensor([[6.3, 4.0], [9.0, 5.45], [0.0, 0.0], [WIDTH - 1.0, HEIGHT - 1.0]])
    squared = (x - truth[:, 0, None, None]) ** 2 + (y - truth[:, 1, None, None]) ** 2
    probability = torch.exp(-squared / (2 * 0.5**2))
    probability = probability / probability.sum((1, 2), keepdim=True)
    gain = (probability.clamp_min(1e-12).log() + ceiling).clamp_min(0)
    gain = torch.cat([gain, torch.zeros((1, HEIGHT, WIDTH))])
    maps = LossMaps(gain, torch.zeros((5, 2), dtype=torch.long), (WIDTH, HEIGHT), GRID, ceiling)
    peaks = find_peaks(maps)
    torch.testing.assert_close(peaks.xy_cells[:2], truth[:2], atol=0.06, rtol=0)
    torch.testing.assert_close(peaks.xy_cells[2:4], truth[2:4], atol=0.25, rtol=0)
    assert bool((peaks.mass[:4] > 0.95).all() and (peaks.mass < 1 + 1e-5).all())
    assert torch.equal(peaks.gain, maps.gain.flatten(1).amax(1))
    assert peaks.mass[4] == 0 and bool(torch.isfinite(peaks.xy_cells).all())


def test_selected_maps_read_the_same() -> None:
    maps, index = random_maps(), torch.tensor([7, 2, 2])
    xy = torch.tensor([[3.2, 4.7]]).expand(12, 2)
    assert torch.equal(maps.select(index).read(xy[None, :3]), maps.read(xy[None])[:, index])


def test_narrowed_maps_keep_their_peaks_and_nothing_far_below() -> None:
    maps = random_maps()
    narrow = maps.narrowed(2.0)
    top = maps.gain.amax((1, 2))
    torch.testing.assert_close(narrow.gain.amax((1, 2)), top)
    below = top[:, None, None] - maps.gain
    assert bool((narrow.gain[(below >= 2.0) & (top[:, None, None] > 2.0)] == 0).all())
    half_way = (1 - below / 2.0) * top[:, None, None]
    near = (below < 2.0) & (top[:, None, None] > 2.0)
    assert near.sum() > len(maps)
    torch.testing.assert_close(narrow.gain[near], half_way[near], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps.narrowed(1e3).gain, maps.gain, atol=1e-4, rtol=1e-4)
    nothing = replace(maps, gain=torch.zeros_like(maps.gain)).narrowed(2.0)
    assert bool((nothing.gain == 0).all())
