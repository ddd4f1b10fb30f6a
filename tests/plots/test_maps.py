"""Maps in colours: one scale, and an outline of what is above the threshold."""

import numpy as np
import pytest

from vaekit.plots import grids
from vaekit.plots.maps import BAR, OUTLINE, MapScale, map_sheet, map_tiles

SCALE = MapScale(low=-1.0, threshold=3.0)


def test_colours_rise_from_low_to_high_and_stay_beyond() -> None:
    colors = SCALE.colors(np.array([-9.0, -1.0, 3.0, 7.0, 99.0])).astype(int)
    assert SCALE.high == 7
    np.testing.assert_array_equal(colors[0], colors[1])
    np.testing.assert_array_equal(colors[3], colors[4])
    brightness = colors.sum(1)
    assert brightness[0] < 30 < brightness[2] < 600 < brightness[4]
    assert SCALE.colors(np.linspace(-1, 7, 200)).tolist().count(list(OUTLINE)) == 0


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_map_has_no_outline(value: float) -> None:
    assert (map_tiles(np.full((1, 4, 4), value), MapScale(value, value)) != OUTLINE).any(-1).all()


def test_what_is_above_the_threshold_is_outlined() -> None:
    maps = np.zeros((2, 32, 32))
    maps[0, 4:6, 10:12] = 5.0
    tiles = map_tiles(maps, SCALE)
    assert tiles.shape == (2, 96, 96, 3)
    outline = (tiles == OUTLINE).all(-1)
    assert not outline[1].any() and outline[0].sum() == 4 * 6 - 4
    assert outline[0, 12, 30:36].all() and outline[0, 17, 30:36].all() and not outline[0, 13:17, 31:35].any()


def test_the_sheet_has_a_bar_with_the_threshold() -> None:
    images = np.full((3, 32, 32, 1), 255, np.uint8)
    pixels = np.asarray(
        map_sheet(images, images, np.zeros((3, 32, 32)), SCALE, 3, ["a", "b", "c"], "A title")
    )
    top = grids.MARGIN + 2 * grids.TITLE_HEIGHT + grids.GAP + BAR[1] // 2
    bar = pixels[top, grids.MARGIN : grids.MARGIN + BAR[0]]
    line = np.flatnonzero((bar == OUTLINE).all(-1))
    assert line.tolist() == [BAR[0] // 2 - 1, BAR[0] // 2]
    np.testing.assert_array_equal(bar[[0, -1]], SCALE.colors(np.array([-1.0, 7.0])))
