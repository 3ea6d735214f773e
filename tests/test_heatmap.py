"""Tables of values in pictures: how numbers are written, where cells go, and their colours."""

import math
import re
import time
from collections import namedtuple
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microbn.graph.heatmap import SCALES, WARNING, Table, _mix, fits, measure, paint, short
from microbn.graph.layout import LayoutError, layout

SVG = "{http://www.w3.org/2000/svg}"
NARROW = {".": 0.278, "-": 0.333}  # what Helvetica's characters take of the size of the font
Box = namedtuple("Box", "left top right bottom")


def picture(tables, *, engine="wasi", style="filled", lines=("name = op", "4×2"), dark=False):
    """Lay out a node with room for tables beside another without, and paint."""
    width, height = measure(tables)
    size = f'width="{width + 0.2:.2f}" height="{height + 0.2 * len(lines) + 0.16:.2f}"'
    label = r"\n".join(lines).replace('"', r"\"")
    source = f"""digraph {{
        node [shape=box style="{style}" fontname=Helvetica fontsize=11]
        other [id=n0 class=input]
        n1 [id=n1 class="op marked" label="{label}" labelloc=t {size}]
        other -> n1 [id=e1_0]
    }}"""
    try:
        svg = layout(source, engine=engine).decode()
    except LayoutError as error:
        pytest.skip("dot is not on PATH") if "not on PATH" in str(error) else pytest.fail(
            str(error)
        )
    return svg, paint(svg, {"n1": tables}, dark=dark)


def find(svg, kind):
    """The elements whose class says that they are of ``kind``."""
    root = ElementTree.fromstring(svg)
    return [e for e in root.iter() if kind in e.get("class", "").split()]


def cells(svg):
    return find(svg, "cell")


def box(cell):
    x, y, width, height = (
        float(cell.find(SVG + "rect").get(k)) for k in ("x", "y", "width", "height")
    )
    return Box(x, y, x + width, y + height)


def texts(svg):
    return [cell.findtext(SVG + "text") for cell in cells(svg)]


def titles(svg):
    return [cell.findtext(SVG + "title") for cell in cells(svg)]


def fills(svg):
    return [cell.find(SVG + "rect").get("fill") for cell in cells(svg)]


def shape_of(node):
    """The box of a node's outline."""
    shape = next(e for e in node if e.tag in (SVG + "polygon", SVG + "path"))
    pairs = re.findall(r"(-?[\d.]+),(-?[\d.]+)", shape.get("points") or shape.get("d"))
    x, y = zip(*((float(x), float(y)) for x, y in pairs), strict=True)
    return Box(min(x), min(y), max(x), max(y))


def paint_one(values, **options):
    return picture([Table("", np.array(values))], **options)[1]


# Numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.3416407, "1.34"),
        (-0.4472091234, "-0.447"),
        (-0.45, "-0.45"),
        (1e-5, "1e-05"),
        (-1.234e-5, "-1.23e-5"),
        (0.000999, "9.99e-04"),
        (0.001, "0.001"),
        (-0.00123456, "-0.00123"),
        (0.0, "0"),
        (-0.0, "0"),
        (70, "70"),
        (999.4, "999"),
        (999.6, "1000"),
        (-12345.6, "-12346"),
        (99999.4, "99999"),
        (99999.6, "1e+05"),
        (-123456, "-1.23e5"),
        (-1.234e-9, "-1.23e-9"),
        (-1.234e-10, "-1.2e-10"),
        (1.234e-10, "1.23e-10"),
        (-1.234e-100, "-1e-100"),
        (1.234e-100, "1.2e-100"),
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (True, "True"),
        (np.False_, "False"),
        (np.float32(0.1), "0.1"),
        (np.int64(2**62), "4.61e+18"),
        (np.uint8(255), "255"),
    ],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


@given(st.floats(-1e99, 1e99).filter(lambda v: v > 1e-99 or v < -1e-9))
@example(9.995)
@example(-9.995e-4)
@example(0.9995)
@example(-999999.0)
def test_a_number_can_be_read_again(value):
    assert len(short(value)) <= 8
    assert math.isclose(float(short(value)), value, rel_tol=0.00501)


@given(st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True))
def test_every_number_fits(value):
    assert 1 <= len(short(value)) <= 8
    if math.isfinite(value) and value:
        assert math.copysign(1, float(short(value))) == math.copysign(1, value)


@given(st.integers(-(2**63), 2**64 - 1))
def test_every_integer_fits(value):
    assert len(short(value)) <= 8
    assert math.isclose(float(short(value)), value, rel_tol=0.00501)


# What fits, and how much room it takes -----------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "can"),
    [
        (np.array(3.0), True),
        (np.float32(3.0), True),
        (np.ones(6), True),
        (np.ones(7), False),
        (np.ones((6, 6), bool), True),
        (np.ones((7, 1)), False),
        (np.ones((1, 7)), False),
        (np.ones((1, 1, 1)), False),
        (np.ones((0, 3)), False),
        (np.ones(3, complex), False),
        (np.array(["a"]), False),
        (np.array([None]), False),
        (None, False),
        ([1.0], False),
    ],
)
def test_what_fits(array, can):
    assert fits(array) is can


def test_room_grows_with_rows_columns_digits_tables_and_captions():
    def room(*values, caption=""):
        return measure([Table(caption, np.array(v)) for v in values])

    width, height = room([1.0])
    assert room([1.0, 1.0])[0] > 1.9 * width
    assert room([[1.0], [1.0]])[1] > 1.9 * height
    assert room([-1.23e-5])[0] > width
    assert room([1.0], [1.0])[0] > 2 * width
    assert room([1.0], [1.0])[1] == height
    assert room([1.0], caption="gradient")[0] > width
    assert room([1.0], caption="gradient")[1] > height


# Where it is painted -----------------------------------------------------------------------------

WIDE = np.array([[-1.23456e-5, 0.5, np.nan], [-12345.6, 0.0, -np.inf]])
PAIRS = {
    "matrices": [Table("value", WIDE), Table("gradient", np.eye(2))],
    "numbers": [Table("value", np.array(3.0)), Table("gradient", np.array(1.0))],
    "largest": [Table("value", -np.eye(6) / 900), Table("gradient", np.ones((6, 6), bool))],
    "row": [Table("", np.arange(6))],
}


@pytest.mark.parametrize("engine", ["dot", "wasi"])
@pytest.mark.parametrize("style", ["filled", "rounded,filled"])
@pytest.mark.parametrize("name", PAIRS)
def test_tables_stand_in_their_node_below_its_label(name, style, engine):
    _, svg = picture(PAIRS[name], engine=engine, style=style)
    node = find(svg, "marked")[0]
    shape, boxes = shape_of(node), [box(cell) for cell in find(svg, "cell")]
    (block,) = find(svg, "tables")
    label = [float(t.get("y")) for t in node.findall(SVG + "text")]
    upper = [float(t.get("y")) - 7 for t in block.iter(SVG + "text")]
    assert len(boxes) == sum(table.values.size for table in PAIRS[name])
    assert min(upper) > max(label) + 3
    assert min(label) - 11 > shape.top
    assert min(b.left for b in boxes) > shape.left + 3
    assert max(b.right for b in boxes) < shape.right - 3
    assert 3 < shape.bottom - max(b.bottom for b in boxes) < 10


@pytest.mark.parametrize("name", PAIRS)
def test_cells_do_not_overlap(name):
    boxes = [box(cell) for cell in cells(picture(PAIRS[name])[1])]
    for k, a in enumerate(boxes):
        for b in boxes[k + 1 :]:
            apart = a.right < b.left or b.right < a.left or a.bottom < b.top or b.bottom < a.top
            assert apart, (a, b)


def test_cells_stand_in_rows_and_columns():
    a, b, c, d, e, f = (box(cell) for cell in cells(paint_one(WIDE)))
    assert a.top == b.top == c.top < d.top == e.top == f.top
    assert a.left == d.left < b.left == e.left < c.left == f.left


@pytest.mark.parametrize("name", PAIRS)
def test_texts_fit_into_their_cells(name):
    for cell in cells(picture(PAIRS[name])[1]):
        text, room = cell.find(SVG + "text"), box(cell)
        size = float(text.get("font-size"))
        width = size * sum(NARROW.get(char, 0.556) for char in text.text)
        assert width + 4 < room.right - room.left
        assert float(text.get("x")) == pytest.approx((room.left + room.right) / 2, abs=0.01)
        assert text.get("text-anchor") == "middle"
        assert room.top + 0.72 * size < float(text.get("y")) < room.bottom - 2


def test_captions_stand_above_their_tables():
    _, svg = picture(PAIRS["matrices"])
    for table, caption in zip(find(svg, "table"), ("value", "gradient"), strict=True):
        text = table.find(SVG + "text")
        boxes = [box(cell) for cell in table.findall(SVG + "g")]
        assert (text.text, text.get("class")) == (caption, "caption")
        assert float(text.get("y")) < min(b.top for b in boxes)
        middle = (min(b.left for b in boxes) + max(b.right for b in boxes)) / 2
        assert float(text.get("x")) == pytest.approx(middle, abs=0.02)
    assert not find(picture(PAIRS["row"])[1], "caption")


def test_any_shape_of_node():
    inside = {
        "polygon": '<polygon points="10,-80 110,-80 110,-20 10,-20 10,-80"/>',
        "ellipse": '<ellipse cx="60" cy="-50" rx="50" ry="30"/>',
        "link": '<g><a><path d="M10,-80C10,-80 110,-80 110,-80 L110,-20 10,-2e1"/></a></g>',
    }
    boxes = []
    for shape in inside.values():
        node = f'<g id="n1" class="node op">{shape}<polygon points="0,0 1,1"/></g>'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg">{node}</svg>'
        boxes.append(box(cells(paint(svg, {"n1": [Table("", np.ones(1))]}))[0]))
    assert boxes[0] == boxes[1] == boxes[2] == Box(47, -38.5, 73, -26)


# What is written ---------------------------------------------------------------------------------


def test_a_cell_shows_a_short_number_and_under_the_mouse_all_of_it():
    svg = paint_one([[1.5, 0.0], [-0.4472091234, 1e-5]])
    assert texts(svg) == ["1.5", "0", "-0.447", "1e-05"]
    assert titles(svg) == [
        "[0, 0] = 1.5",
        "[0, 1] = 0.0",
        "[1, 0] = -0.4472091234",
        "[1, 1] = 1e-05",
    ]


@pytest.mark.parametrize(
    ("values", "title"),
    [
        (0.1 + 0.2, "0.30000000000000004"),
        ([7], "[0] = 7"),
        ([True], "[0] = True"),
        (np.array([[0.1]], np.float32), "[0, 0] = 0.1"),
        ([np.nan], "[0] = nan"),
        (np.array([2**64 - 1], np.uint64), "[0] = 18446744073709551615"),
    ],
)
def test_titles_of_any_dimension_and_dtype(values, title):
    assert titles(paint_one(values)) == [title]


def test_the_picture_stays_as_it_was_around_the_tables():
    before, after = picture(PAIRS["matrices"])
    old = ElementTree.fromstring(before)
    new = ElementTree.fromstring(after)
    for node in new.iter(SVG + "g"):
        for block in node.findall(f"{SVG}g[@class='tables']"):
            node.remove(block)
    for root in (old, new):
        for text in root.findall(f".//{SVG}g[@id='n1']/{SVG}text"):
            del text.attrib["y"]  # it is moved away from the border
    assert ElementTree.canonicalize(ElementTree.tostring(new), strip_text=True) == (
        ElementTree.canonicalize(ElementTree.tostring(old), strip_text=True)
    )
    assert re.match(r"<svg [^>]*xmlns=\"http://www\.w3\.org/2000/svg\"", after)
    assert "ns0:" not in after


def test_only_the_nodes_asked_for_are_painted():
    before, svg = picture(PAIRS["row"])
    assert len(find(svg, "tables")) == 1
    row = {"tables": PAIRS["row"]}
    for key in ("e1_0", "graph0", "nowhere"):  # an edge, the page, nothing
        assert not find(paint(before, {key: row["tables"]}), "tables")
    assert not find(paint(before, {"n1": []}), "tables")


def test_the_same_tables_give_the_same_text():
    assert picture(PAIRS["matrices"]) == picture(PAIRS["matrices"])


def test_nothing_becomes_markup():
    evil = "</title></g><script>alert('1 & 2')</script>"
    _, svg = picture([Table(evil, np.ones(1))], lines=(evil.replace("&", "&amp;"), "2"))
    root = ElementTree.fromstring(svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "g", "title", "polygon", "path", "text", "rect"}
    assert [t.text for t in root.iter(SVG + "text")].count(evil) == 2


def test_two_hundred_nodes_take_no_time():
    square = '<polygon points="0,-200 600,-200 600,0 0,0 0,-200"/>'
    nodes = "".join(f'<g id="n{k}" class="node">{square}</g>' for k in range(200))
    values = np.arange(36.0).reshape(6, 6) / 7
    blocks = {f"n{k}": [Table("value", values), Table("gradient", values)] for k in range(200)}
    start = time.process_time()
    svg = paint(f'<svg xmlns="http://www.w3.org/2000/svg">{nodes}</svg>', blocks)
    assert time.process_time() - start < 3  # 0.5 s where this was written
    assert svg.count('class="cell"') == 200 * 72


# Colours -----------------------------------------------------------------------------------------


def luminance(color):
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def rgb(color):
    return [int(color[k : k + 2], 16) for k in (1, 3, 5)]


@pytest.mark.parametrize("dark", [False, True])
def test_every_fill_lets_its_text_be_read(dark):
    scale = SCALES[dark]
    for end in (scale.negative, scale.positive):
        for share in np.linspace(0, 1, 101):
            assert contrast(_mix(scale.zero, end, share), scale.text) >= 4.5
    assert contrast(*WARNING) >= 4.5
    values = [-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0]
    for cell in cells(paint_one(values, dark=dark)):
        fill, color = (cell.find(SVG + tag).get("fill") for tag in ("rect", "text"))
        assert contrast(fill, color) >= 4.5


def test_blue_is_negative_white_zero_and_orange_positive():
    blue, pale, white, orange = fills(paint_one([-2.0, -1.0, 0.0, 2.0]))
    assert (blue, white, orange) == ("#60A5FA", "#FFFFFF", "#FB923C")
    assert rgb(blue)[2] > rgb(blue)[0]
    assert rgb(orange)[0] > rgb(orange)[2]
    assert rgb(pale) == pytest.approx([(a + 255) / 2 for a in rgb(blue)], abs=0.5)


def test_the_scale_is_that_of_the_table_and_the_same_to_both_sides():
    _, svg = picture([Table("", np.array([-1.0, 100.0])), Table("", np.array([-1.0, 1.0]))])
    faint, orange, blue, same = fills(svg)
    assert min(rgb(faint)) > 250
    assert orange == same
    assert min(rgb(blue)) < 100


@pytest.mark.parametrize("dark", [False, True])
def test_zero_is_the_neutral_colour(dark):
    zero = SCALES[dark].zero
    assert set(fills(paint_one([0.0, -0.0], dark=dark))) == {zero}
    assert fills(paint_one([False, True], dark=dark)) == [zero, SCALES[dark].positive]


def test_what_is_not_finite_is_red_and_does_not_count():
    red, _ = WARNING
    assert fills(paint_one([np.nan, np.inf, -np.inf, 1.0, 2.0])) == [
        *[red] * 3,
        fills(paint_one([1.0, 2.0]))[0],
        SCALES[False].positive,
    ]
    assert fills(paint_one([np.nan])) == [red]


@pytest.mark.parametrize("value", [5e-324, 1.7e308, np.longdouble("1e400"), np.float16(65504)])
def test_extreme_numbers_have_colours(value):
    table = Table("", np.array([value, -value]))
    assert len(fills(picture([table])[1])) == 2
