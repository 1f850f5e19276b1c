"""Smoothed gains and their derivatives: against a brute force and autograd, inside, at and beyond the border."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nre_ros.geometry import CellGrid
from nre_ros.nre import LossMaps
from nre_ros.nre.smoothing import smoothed_gain, surroundings

WIDTH, HEIGHT = 30, 22
CELLS = CellGrid(1, 0)
INSIDE = [(12.0, 10.0), (14.3, 9.8), (10.51, 11.49)]
NEAR = [(0.0, 0.0), (0.7, 10.2), (28.6, 12.0), (15.2, 0.3), (14.8, 20.9), (28.8, 20.7)]
BEYOND = [(-1.3, 10.0), (30.2, 12.0), (15.0, -2.1), (14.0, 23.0), (-1.5, -1.5)]
each_sigma = pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
each_place = pytest.mark.parametrize("places", [INSIDE, NEAR, BEYOND], ids=["inside", "near", "beyond"])


def random_maps(points: int, window: tuple[int, int, int, int] | None = None) -> LossMaps:
    """Float64 gains, as none of the code minds: derivatives can then be compared closely. ``window``: x, y and size;
    beyond the image it holds nothing."""
    x, y, width, height = window or (0, 0, WIDTH, HEIGHT)
    gain = torch.rand((points, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gain[:, HEIGHT - y :], gain[:, :, WIDTH - x :] = 0, 0
    origin = torch.tensor([[x, y]]).expand(points, 2)
    return LossMaps(gain * 5, origin, (WIDTH, HEIGHT), CELLS, math.log(WIDTH * HEIGHT + 1))


def positions(places: list[tuple[float, float]]) -> Tensor:
    return torch.tensor([places], dtype=torch.float64)


def kernel_mean(maps: LossMaps, xy: Tensor, sigma: float) -> Tensor:
    """Values (N,) at (N, 2) by the definition, over all cells: differentiable. Divided by the geometric mean of the
    kernel's mass on the image and its whole mass; below half the kernel's mass per axis that is held."""
    height, width = maps.gain.shape[1:]
    factors = []
    for axis, (size, stored, first) in enumerate(
        zip((WIDTH, HEIGHT), (width, height), maps.origin_cells.unbind(1), strict=True)
    ):
        on_image = torch.exp(-((torch.arange(size) - xy[:, axis, None]) ** 2) / (2 * sigma**2))
        cells = first[:, None] + torch.arange(stored)
        kernel = torch.exp(-((cells - xy[:, axis, None]) ** 2) / (2 * sigma**2))
        full = math.sqrt(2 * math.pi) * sigma
        mass = on_image.sum(1).clamp_min(0.5 * full)
        factors.append(kernel / (mass[:, None] * full).sqrt())
    return torch.einsum("nyx,nx,ny->n", maps.gain, *factors)


@each_sigma
@each_place
def test_values_are_the_kernel_mean(sigma: float, places: list[tuple[float, float]]) -> None:
    maps, xy = random_maps(len(places)), positions(places)
    value = smoothed_gain(maps, xy, sigma).value[0]
    torch.testing.assert_close(value, kernel_mean(maps, xy[0], sigma), atol=0.03, rtol=0)


@each_sigma
@each_place
def test_gradient_and_hessian_are_autograds(sigma: float, places: list[tuple[float, float]]) -> None:
    """The kernel ends at 3.5 sigma, where it weighs 0.2 %; the reference goes on."""
    maps, xy = random_maps(len(places)), positions(places)
    smooth = smoothed_gain(maps, xy, sigma, min_curvature=None)
    for n in range(len(places)):
        one = maps.select(torch.tensor([n]))

        def value(position: Tensor, one: LossMaps = one) -> Tensor:
            return kernel_mean(one, position[None], sigma)[0]

        gradient = torch.autograd.functional.jacobian(value, xy[0, n])
        hessian = torch.autograd.functional.hessian(value, xy[0, n])
        torch.testing.assert_close(smooth.gradient[0, n], gradient, atol=0.05 / sigma, rtol=0.02)
        torch.testing.assert_close(smooth.curvature[0, n], -hessian, atol=0.15 / sigma**2, rtol=0.02)


def test_windows_that_hold_a_part_of_the_image() -> None:
    """Beyond the window nothing is gained, but the kernel's mass there counts, as the image goes on."""
    maps = random_maps(5, window=(20, 14, 17, 17))
    xy = positions([(24.0, 18.0), (20.2, 15.0), (29.0, 21.0), (19.0, 13.0), (5.0, 5.0)])
    smooth = smoothed_gain(maps, xy, 1.0)
    torch.testing.assert_close(smooth.value[0], kernel_mean(maps, xy[0], 1.0), atol=0.03, rtol=0)
    assert smooth.value[0, 4] == 0


@each_sigma
def test_a_flat_map_pulls_nowhere_inside_and_little_at_the_border(sigma: float) -> None:
    maps = random_maps(1)
    flat = LossMaps(torch.full_like(maps.gain, 2.0), maps.origin_cells, maps.image_cells, CELLS, maps.ceiling)
    smooth = smoothed_gain(flat, positions([(15.2, 10.7)]), sigma, min_curvature=None)
    torch.testing.assert_close(smooth.value, torch.full_like(smooth.value, 2.0), rtol=0.01, atol=0)
    assert float(smooth.gradient.abs().max()) < 0.01 / sigma
    # half of the kernel lies beyond the edge: the gain falls by the root of a half, not by a half
    edge = smoothed_gain(flat, positions([(-0.5, 10.7)]), sigma, min_curvature=None)
    assert float(edge.value) == pytest.approx(2.0 * math.sqrt(0.5), rel=0.03)


@each_sigma
def test_far_outside_there_is_nothing(sigma: float) -> None:
    places = positions([(-20.0, 10.0), (15.0, 50.0), (1e9, -1e9), (1e300, 0.0)])
    smooth = smoothed_gain(random_maps(4), places, sigma)
    for numbers in (smooth.value, smooth.gradient, smooth.curvature):
        assert not bool(numbers.any())


def test_the_gain_fades_towards_the_outside() -> None:
    maps = random_maps(40)
    flat = LossMaps(torch.ones_like(maps.gain), maps.origin_cells, maps.image_cells, CELLS, maps.ceiling)
    outwards = torch.stack([torch.linspace(0, -6, 40), torch.full((40,), 11.0)], -1).double()[None]
    value = smoothed_gain(flat, outwards, 1.0).value[0]
    assert bool((value.diff() <= 1e-12).all())
    assert value[0] == pytest.approx(0.84, abs=0.01) and value[-1] == pytest.approx(0.0, abs=1e-6)


@each_sigma
def test_floored_curvature_is_positive_and_changes_only_what_must_be(sigma: float) -> None:
    places = positions([*INSIDE, *NEAR, *BEYOND])
    maps = random_maps(len(places[0]))
    true = smoothed_gain(maps, places, sigma, min_curvature=None)
    floored = smoothed_gain(maps, places, sigma, min_curvature=0.15)
    floor = 0.15 * true.value / sigma**2
    want, vectors = torch.linalg.eigh(true.curvature)
    expected = vectors @ torch.diag_embed(want.maximum(floor[..., None])) @ vectors.mT
    torch.testing.assert_close(floored.curvature, expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(floored.gradient, true.gradient)


def test_surroundings_serve_while_positions_move_less_than_their_margin() -> None:
    maps, xy = random_maps(len(INSIDE)), positions(INSIDE)
    around = surroundings(maps, xy, 1.0)
    seen = torch.ones((1, len(INSIDE)), dtype=torch.bool)
    moved = xy + torch.tensor([0.7, -0.9])
    assert around.cover(moved, seen) and not around.cover(xy + 1.1, seen)
    assert around.cover(xy + 1.1, ~seen)
    here, again = smoothed_gain(maps, moved, 1.0), smoothed_gain(maps, moved, 1.0, around)
    torch.testing.assert_close(again.value, here.value, atol=0.03, rtol=0)
    torch.testing.assert_close(again.gradient, here.gradient, atol=0.05, rtol=0)
