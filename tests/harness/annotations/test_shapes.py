"""Which pixels a shape has: counted by hand, and against matplotlib's test of points."""

import numpy as np
import pytest
from accl_harness.annotations.shapes import Shape, draw, ellipse, fill, of_runs, rectangle, turned
from accl_harness.errors import UserError
from matplotlib.path import Path as Outline

SIZE = (6, 8)


def show(mask):
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def area(*rings, **options):
    return draw(Shape("a", "area", [np.array(r, float) for r in rings]), SIZE, 3, **options)


def test_a_pixel_belongs_by_its_centre():
    assert show(area([[1, 1], [4, 1], [4, 3], [1, 3]])) == [
        "........",
        ".###....",
        ".###....",
        "........",
        "........",
        "........",
    ]
    # Corners in the middle of pixels: of 1.5 to 4.4 the centres 1.5, 2.5 and 3.5.
    assert area([[1.5, 1], [4.4, 1], [4.4, 2], [1.5, 2]])[1].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert show(area([[0, 0], [4, 0], [0, 4]]))[:4] == ["###.....", "##......", "#.......", "." * 8]


def test_areas_that_share_an_edge_share_no_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.uniform(0, 8, 2)
        left = fill([np.array([[0, 0], [a[0], 0], [a[1], 6], [0, 6]])], SIZE)
        right = fill([np.array([[a[0], 0], [8, 0], [8, 6], [a[1], 6]])], SIZE)
        assert not (left & right).any()
        assert (left | right).all()


def test_inner_rings_are_holes():
    outer, inner = rectangle(0, 0, 6, 6), rectangle(2, 2, 4, 4)
    assert area(outer, inner).sum() == 36 - 4


@pytest.mark.parametrize("seed", range(5))
def test_polygons_as_matplotlib_has_them(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(5, 20, 9)
    ring = np.stack([25 + radius * np.cos(angle), 22 + radius * np.sin(angle)], 1)
    rows, columns = np.mgrid[:45, :50]
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    inside = Outline(ring).contains_points(centres).reshape(45, 50)
    assert np.array_equal(fill([ring], (45, 50)), inside)
    assert inside.sum() > 50


def test_lines_have_the_width_that_is_asked():
    line = Shape("a", "line", [np.array([[2.5, 2.5], [5.5, 2.5]])])
    assert draw(line, SIZE, 3).sum(0).tolist() == [0, 3, 3, 3, 3, 3, 3, 0]
    assert show(draw(line, SIZE, 1))[1:4] == ["........", "..####..", "........"]
    slant = draw(Shape("a", "line", [np.array([[0.5, 0.5], [5.5, 5.5]])]), SIZE, 1)
    assert [int(row.argmax()) for row in slant] == [0, 1, 2, 3, 4, 5]
    assert slant.sum() == 6
    bent = Shape("a", "line", [np.array([[0.5, 0.5], [0.5, 5.5], [7.5, 5.5]])])
    assert draw(bent, SIZE, 1).sum() == 6 + 7


def test_points_are_discs():
    point = Shape("a", "points", [np.array([[2.5, 2.5], [7.9, 0.1]])])
    assert show(draw(point, SIZE, 3)) == [
        "......##",
        ".###...#",
        ".###....",
        ".###....",
        "........",
        "........",
    ]
    assert draw(point, SIZE, 1).sum() == 2


def test_ellipses_and_turned_boxes():
    size = (60, 60)
    disc = fill([ellipse(30, 30, 20, 10)], size)
    assert abs(disc.sum() - np.pi * 200) < 10
    assert disc[30, 11]
    assert not disc[11, 30]
    upright = fill([ellipse(30, 30, 20, 10, 90)], size)
    assert np.array_equal(upright, disc.T)
    # Clockwise on the screen: the right end of a flat box goes down.
    box = fill([turned(rectangle(10, 28, 50, 32), 45)], size)
    assert box[40, 40]
    assert not box[20, 40]


def test_runs_by_rows_and_by_columns():
    assert show(of_runs([1, 2, 3], (2, 3), by_columns=False)) == [".##", "..."]
    assert show(of_runs([1, 2, 3], (2, 3), by_columns=True)) == [".#.", "#.."]
    assert show(of_runs([0, 6], (2, 3), by_columns=True)) == ["###", "###"]
    with pytest.raises(UserError, match="a brush mask of 2 x 3 has runs for 5 pixels"):
        of_runs([1, 4], (2, 3), by_columns=True)


def test_a_brush_mask_at_its_place():
    brush = Shape("a", "mask", mask=np.array([[1, 0], [1, 1]], bool), corner=(4, 6))
    assert show(draw(brush, SIZE, 3))[4:] == ["......#.", "......##"]
    over = Shape("a", "mask", mask=np.ones((3, 3), bool), corner=(-1, 6))
    with pytest.raises(UserError, match=r"brush mask 'a' \(x 6 to 9, y -1 to 2\) lies outside of"):
        draw(over, SIZE, 3)
    assert show(draw(over, SIZE, 3, clip=True))[:3] == ["......##", "......##", "........"]


def test_shapes_outside_of_their_image():
    beyond = [[6, 1], [9.5, 1], [9.5, 3], [6, 3]]
    words = r"polygon 'a' \(x 6 to 9\.5, y 1 to 3\) lies outside of .* 8 wide and 6 high; .*--clip"
    with pytest.raises(UserError, match=words):
        area(beyond)
    assert area(beyond, clip=True).sum() == 4
    assert area([[6, 1], [8.9, 1], [8.9, 3], [6, 3]]).sum() == 4  # less than a pixel
    with pytest.raises(UserError, match="covers the centre of no pixel"):
        area([[1.6, 1], [2.4, 1], [2.4, 3]])
