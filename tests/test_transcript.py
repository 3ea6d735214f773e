"""The steps of a walk as text: tables, sections, and the frames that a screen is filled with."""

import io
import linecache

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

import microbn as mb
from microbn.graph.parts import Node, Source
from microbn.graph.step.event import Shown, Step
from microbn.terminal.screen import Screen, body, help_frame, source
from microbn.terminal.tables import beside, entry, fitted, plain, table, wrapped
from microbn.terminal.transcript import transcript

HOSTILE = ["[red]x", "\x1b[31m", "平均" * 20, "x\u0302" * 9, "a\nb\tc\r", "\u202egro", ":tada:", ""]


def texts(lines):
    return [line.plain.rstrip() for line in lines]


def shown(value, caption="x", dtype=None):
    return Shown(caption, np.asarray(value, dtype))


def numbers(lines):
    """The cells of a table without its caption and shape."""
    return [line.plain.split() for line in lines[2:]]


def batch_norm():
    x = mb.Tensor([[7.0, 70], [8, 80], [9, 90], [6, 60]], requires_grad=True, name="x")
    gamma = mb.Tensor([1.0, 2], requires_grad=True, name="gamma")
    with mb.scope("model"):
        y = mb.batch_norm(x, gamma)
    walk = mb.steps((y * np.array([[1.0, 0], [0, 0], [0, 0], [0, 1]])).sum().named("loss"))
    walk.title = ""
    return walk


def printed(walk, *, steps=None, **options):
    file = io.StringIO()
    transcript(walk, Console(file=file, **options), steps=steps)
    return file.getvalue()


# Tables ------------------------------------------------------------------------------------------


def test_a_table_has_its_caption_its_shape_and_its_numbers():
    assert texts(table(shown([[7, -70.25], [0.5, 8]], "squared"), 40)) == [
        "squared",
        "2×2 float64",
        "    7    -70.25",
        "    0.5    8",
    ]


@pytest.mark.parametrize(
    ("value", "shape", "cells"),
    [
        (3.0, "scalar float64", [["3"]]),
        ([1, 2], "2 int64", [["1", "2"]]),
        ([True, False], "2 bool", [["True", "False"]]),
        ([[[1.0, 2.0]]], "1×1×2 float64", [["1", "2"]]),
        (np.zeros((1, 3, 1), np.float32), "1×3×1 float32", [["0"] * 3]),
        ([[np.nan, -np.inf]], "1×2 float64", [["nan", "-inf"]]),
        (np.zeros((0, 3)), "0×3 float64", [["empty"]]),
        (np.array(["text"]), "1 <U4", [["not", "numbers"]]),
        (np.longdouble(0.5), "scalar longdouble", [["0.5"]]),
    ],
)
def test_arrays_of_any_kind(value, shape, cells):
    lines = table(shown(value), 40)
    assert texts(lines)[1] == shape.replace("longdouble", str(np.dtype(np.longdouble)))
    assert numbers(lines) == cells


def test_numbers_have_four_significant_digits():
    values = [2 / 3, 1234.56, 12345.6, -1.23456e-5, 1e-300, 12345678.0, -0.0, np.float32(0.1), 7]
    assert [entry(v) for v in values] == (
        "0.6667 1235 1.235e+04 -1.235e-05 1e-300 1.235e+07 0 0.1 7".split()
    )


def test_a_long_caption_does_not_push_other_tables_away():
    lines = texts(table(shown([1.0], "a caption that is far longer than the table"), 80))
    assert lines[0] == "a caption that is f…"
    assert texts(table(shown(np.full(6, 1.5), "a caption as wide as it"), 80))[0][-1] == "t"


def test_points_are_in_line():
    column = [line.plain for line in table(shown([[1.5], [-10.25], [300]]), 40)[2:]]
    assert column[0].index(".") == column[1].index(".") == column[2].index("300") + 3


def test_large_arrays_are_cut_and_have_a_digest():
    array = np.arange(70.0).reshape(7, 10)
    lines = texts(table(shown(array), 80))
    assert lines[1] == "7×10 float64"
    assert [line.split() for line in lines[2:8]] == [
        [*(f"{10 * i + j}" for j in range(6)), "…"] for i in range(6)
    ]
    assert set(lines[8].split()) == {"…"}
    assert lines[9] == "34.5 ± 20.21, 0 … 69"


def test_a_table_of_six_by_six_is_complete():
    lines = table(shown(np.eye(6)), 80)
    assert len(lines) == 8
    assert "…" not in "".join(texts(lines))


def test_the_digest_counts_what_is_not_finite_and_leaves_it_out():
    lines = texts(table(shown([1.0, 3.0, np.nan, np.nan, np.inf, 2.0, 2.0]), 80))
    assert lines[-1] == "2 ± 0.7071, 1 … 3, 2 nan, 1 inf"
    assert texts(table(shown([np.nan] * 9), 80))[-1] == "9 nan"


def test_of_more_than_two_axes_the_first_matrix_is_shown():
    array = np.arange(24.0).reshape(2, 3, 4)
    lines = texts(table(shown(array), 40))
    assert lines[1] == "2×3×4 float64, [0]"
    assert lines[2].split() == ["0", "1", "2", "3"]
    assert lines[5] == "11.5 ± 6.922, 0 … 23"


def test_columns_are_cut_to_the_width():
    array = np.arange(6) * 1000.5
    for width in range(4, 60):
        lines = table(shown(array), width)
        assert max(line.cell_len for line in lines) <= width
        if width >= 8:  # one number
            complete = [entry(value) for value in array]
            seen = lines[2].plain.split()
            assert seen == complete or (seen[-1] == "…" and seen[:-1] == complete[: len(seen) - 1])
    assert table(shown(array), 60)[2].plain.split() == "0 1000 2001 3002 4002 5002".split()


def test_colours_say_sign_and_size_and_what_is_not_finite():
    line = table(shown([-4.0, 0.0, 1.0, 4.0, np.nan]), 60)[2]
    styles = [str(span.style) for span in line.spans]
    assert len(set(styles)) == 5
    backgrounds = [span.style.bgcolor.triplet for span in line.spans]
    assert backgrounds[0].blue > backgrounds[0].red
    assert backgrounds[1].blue == pytest.approx(backgrounds[1].red, abs=10)
    assert backgrounds[3].red > backgrounds[3].blue
    assert abs(backgrounds[2].red - backgrounds[2].blue) < backgrounds[3].red - backgrounds[3].blue
    assert all(span.style.color is not None for span in line.spans)  # never the terminal's own


def test_tables_stand_side_by_side_with_their_signs():
    row = (shown([[1.0], [2.0]], "a"), "−", shown(0.5, "b"), "=", shown([[0.5], [1.5]], "c"))
    assert texts(beside(row, 80)) == [
        "a             b                c",
        "2×1 float64   scalar float64   2×1 float64",
        " 1          −  0.5           =  0.5",
        " 2                              1.5",
    ]


def test_what_does_not_fit_goes_below_with_its_sign():
    row = (shown([1.0, 2.0], "a"), "×", shown([3.0, 4.0], "b"), "=", shown([3.0, 8.0], "c"))
    lines = texts(beside(row, 30))
    assert [line.split() for line in lines] == [
        ["a", "b"],
        ["2", "float64", "2", "float64"],
        ["1", "2", "×", "3", "4"],
        ["c"],
        ["2", "float64"],
        ["=", "3", "8"],
    ]


def test_large_tables_show_less_before_they_go_below():
    a, small = np.full((9, 9), 1234.5), np.full((2, 2), 8.0)
    assert "c" in texts(beside((shown(a, "a"), "×", shown(small, "b"), "=", shown(a, "c")), 80))[0]
    assert texts(beside((shown(a, "a"), "×", shown(small, "b")), 80))[2].count("1234") == 6


def test_rows_of_small_tables_are_never_left_out():
    assert len(table(shown(np.ones((6, 2))), 40, rows=3)) == 8
    assert len(table(shown(np.ones((7, 2))), 40, rows=3)) == 2 + 3 + 1 + 1


# Text from users ---------------------------------------------------------------------------------


def test_control_characters_are_replaced():
    assert plain("\x1b[31mred\x07") == "�[31mred�"
    assert plain("a\nb\tc") == "a b c"
    assert plain("\u202egro") == "�gro"
    assert plain("[bold]µ 平均") == "[bold]µ 平均"


def test_wide_characters_take_two_cells():
    lines = beside((shown([1.0], "平均"), "=", shown([2.0], "x\u0302")), 40)
    assert len({line.cell_len for line in lines}) == 1
    assert lines[0].plain.index("x") == lines[1].plain.index("1 float64", 5) - 2


def hostile_steps():
    values = [np.nan, np.ones((9, 9, 9)), np.zeros((0,)), np.full((7, 2), -1e-300), "text", [[1]]]
    values += [[1.7e308, -1e308, -np.inf], 5e-324, np.full(20, -1.7e308)]
    for name in HOSTILE:
        node = Node(0, "op", "mul", "×", name, (name, name), None, (), "float64")
        row = tuple(x for value in values for x in (shown(value, name), name or "="))
        where = Source(f"/tmp/{name}.py", 3, name)
        words = {"formula": name, "sentence": name * 3, "remark": name}
        yield Step(1, "forward", node, rows=(row, ()), source=where, **words)


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (120, 40), (20, 5), (9, 3), (3, 2), (1, 1)])
def test_frames_fill_the_screen_exactly_whatever_there_is_to_show(size):
    walk = batch_norm()
    width, height = size
    for step in [*walk, *hostile_steps()]:
        walk[1], walk.title = step, step.formula
        screen = Screen(walk)
        screen.outline += [(plain(name), None) for name in HOSTILE]
        for tab in range(3):
            lines = screen.frame(1, width, height, tab=tab)
            assert len(lines) == height
            assert {line.cell_len for line in lines} == {width}
            assert all(line.plain.isprintable() for line in lines)


def test_a_frame_is_not_markup_nor_emoji():
    walk = batch_norm()
    walk[1] = Step(1, "forward", walk[1].node, formula="[red]x[/red] :smile: [/]")
    file = io.StringIO()
    Console(file=file, width=80).print(*Screen(walk).frame(1, 80, 24), sep="\n")
    assert "[red]x[/red] :smile: [/]" in file.getvalue()


@pytest.mark.parametrize("height", range(1, 16))
def test_the_help_is_complete_at_any_size(height):
    seen = set()
    for tab in range(40):
        lines = help_frame(50, height, tab)
        assert len(lines) == height
        seen |= set(texts(lines))
    if height > 3:
        assert any("quit" in line for line in seen)
        assert any("next step" in line for line in seen)


# A screen ----------------------------------------------------------------------------------------


def test_the_top_line_says_where_one_is():
    walk = batch_norm()
    walk.title = "program"
    head = Screen(walk).frame(2, 80, 24)[0].plain
    assert head.split() == f"program FORWARD step 2 of {len(walk) - 1} model › batch_norm".split()
    assert "BACKWARD" in Screen(walk).frame(walk.backward, 80, 24)[0].plain


def test_everything_of_a_step_is_on_the_screen():
    walk = batch_norm()
    text = " ".join(" ".join(texts(Screen(walk).frame(2, 80, 24))).split())
    step = walk[2]
    assert " ".join(step.formula.split()) in text
    assert step.sentence in text
    assert step.remark in text
    assert "-1.5" in text
    assert "q quit" in text


def test_the_parts_of_a_step_together_are_all_of_it():
    walk = batch_norm()
    wanted = set(filter(None, texts(body(walk[2], 40))))
    seen = set()
    for tab in range(9):
        seen |= set(texts(Screen(walk).frame(2, 40, 8, tab=tab)))
    assert wanted <= seen


def test_remarks_on_the_whole_walk_come_first():
    walk = batch_norm()
    walk.remarks = ("The seed is random.", "[b]Only[/b] the last result.")
    rows = texts(Screen(walk).frame(0, 80, 40))
    assert [row for row in rows if row in walk.remarks] == list(walk.remarks)
    assert walk.remarks[0] not in "".join(texts(Screen(walk).frame(1, 80, 40)))
    assert printed(walk).splitlines()[:3] == [*walk.remarks, ""]
    assert walk.remarks[0] not in printed(walk, steps=[0])


def test_the_step_at_which_a_program_failed():
    walk = batch_norm()
    walk[1] = Step(1, "error", formula="the program failed here", sentence="ValueError: no")
    rows = texts(Screen(walk).frame(1, 80, 24))
    assert rows[0].split()[0] == "ERROR"
    assert "ValueError: no" in rows


def test_a_wide_screen_lists_the_ops_and_marks_the_current_one():
    walk = batch_norm()
    lines = texts(Screen(walk).frame(2, 120, 40))
    listed = [line.split("│")[0].rstrip() for line in lines[1:-1]]
    assert "  model" in listed
    assert "    batch_norm" in listed
    assert [line for line in listed if ">" in line] == [">     centered"]
    assert "│" not in "".join(texts(Screen(walk).frame(2, 109, 40)))


def test_the_list_marks_gradients_that_are_complete_and_where_they_came_through():
    walk = batch_norm()
    step = next(s for s in walk if s.kind == "edge" and s.final and s.via)
    listed = texts(Screen(walk).frame(step.index, 120, 40))
    (current,) = [line for line in listed if line.startswith(">")]
    (through,) = [line for line in listed if line.startswith("•")]
    assert current.split("│")[0].rstrip().endswith("∂")
    assert walk.names[step.via.index] in through
    before = texts(Screen(walk).frame(step.index - 1, 120, 40))
    assert sum("∂" in line.split("│")[0] for line in before) < sum(
        "∂" in line.split("│")[0] for line in listed
    )


# Source ------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "bn.py"
    path.write_text("\n\nimport math\n\ndef f(x):\n\treturn [x]  # 平均\n\n\n\ny = 1\n", "utf-8")
    linecache.checkcache(str(path))
    return path


def test_the_lines_around_the_current_one(program):
    where = Source(str(program), 6, "return [x]  # 平均")
    assert texts(source(where, 60, 3)) == [
        "bn.py:6",
        "     3  import math",
        "     4",
        "     5  def f(x):",
        ">    6      return [x]  # 平均",
    ]
    assert texts(source(where, 60, 0)) == ["bn.py:6  return [x]  # 平均"]
    assert max(line.cell_len for line in source(where, 12, 3)) == 12


def test_a_low_screen_shows_less_source_before_a_step_gets_parts(program):
    walk = batch_norm()
    where = Source(str(program), 6, "return [x]  # 平均")
    walk[1] = Step(1, "forward", walk[1].node, None, formula="f", rows=walk[1].rows, source=where)

    def rows(height):
        return [row for row in texts(Screen(walk).frame(1, 80, height)) if row]

    assert sum("import math" in row or "def f" in row for row in rows(24)) == 2
    low = rows(13)
    assert "bn.py:6  return [x]  # 平均" in low
    assert not any("def f" in row or "Tab" in row for row in low)
    assert any("Tab" in row for row in rows(8))


@pytest.mark.parametrize("name", ["bn.py", "gone.py"])
def test_of_a_program_that_has_changed_only_the_line_that_ran_is_shown(program, name):
    where = Source(str(program.with_name(name)), 6, "return x * 2")
    assert texts(source(where, 60, 3)) == [f"{name}:6  return x * 2"]


# The transcript ----------------------------------------------------------------------------------


def test_the_transcript_has_every_step_in_order():
    walk = batch_norm()
    walk.title = "program"
    lines = printed(walk).splitlines()
    assert lines[0] == "program"
    heads = [line for line in lines if line.startswith("[")]
    assert [head.split()[0] for head in heads] == [
        f"[{k}/{len(walk) - 1}]" for k in range(len(walk))
    ]
    assert heads[2] == f"[2/{len(walk) - 1}] FORWARD  model › batch_norm"
    assert sum("BACKWARD" in head for head in heads) == len(walk) - walk.backward


def test_a_step_of_the_transcript():
    x = mb.Tensor([1.0, 2.0], requires_grad=True, name="x")
    walk = mb.steps((x * 3).named("y"))
    text = printed(walk, steps=[1])
    assert text.startswith(f"[1/{len(walk) - 1}] FORWARD\n  y = x × 3\n  ")
    assert "  x           3" in text
    assert " 1  2" in text
    assert " 3  6" in text
    assert text.endswith("\n\n")


def test_the_transcript_shows_lines_of_source(program):
    where = Source(str(program), 6, "return [x]  # 平均")
    walk = batch_norm()
    walk[1] = Step(1, "forward", walk[1].node, formula="f", source=where)
    assert "  bn.py:6  return [x]  # 平均\n" in printed(walk, steps=[1])


def test_the_transcript_is_eighty_columns_of_plain_text_and_always_the_same():
    walk = batch_norm()
    text = printed(walk, width=200)
    assert text == printed(batch_norm(), width=30)
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) <= 80
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_on_a_terminal_the_transcript_has_its_width_and_its_colours():
    walk = batch_norm()
    options = {"force_terminal": True, "width": 50, "color_system": "truecolor", "_environ": {}}
    text = printed(walk, **options)
    assert "\x1b[" in text
    assert max(line.cell_len for line in Text.from_ansi(text).split("\n")) <= 50
    assert "48;2" not in printed(walk, **options, no_color=True)


def test_fitted_and_wrapped_keep_to_their_width():
    for text in [*HOSTILE, "some words and some more of them"]:
        for width in range(1, 30):
            assert fitted(Text(plain(text)), width).cell_len == width
            assert max((line.cell_len for line in wrapped(text, width)), default=0) <= max(width, 2)
