"""The stepping page: its data, and the page itself in a browser."""

import html
import importlib.util
import json
import math
import os
import re
from base64 import b64encode
from hashlib import sha256

import numpy as np
import pytest

import microbn as mb
from microbn.graph.step import page as pages
from microbn.graph.step.event import Failure, Shown, Step
from microbn.graph.step.how import How, Operand
from microbn.graph.step.walk import Walk

HAS_PIPE = hasattr(os, "posix_spawn")
if HAS_PIPE:
    import browser as browsers

PROGRAM = '''"""Batch norm."""

import numpy as np


def standardise(x, eps):
    mean = np.mean(x, axis=0)
    centered = x - mean
    var = np.mean(centered**2, axis=0)
    return centered / np.sqrt(var + eps)


def batch_norm(x, gamma, beta):
    x_hat = standardise(x, 1e-5)
    y = gamma * x_hat + beta
    return y
'''
DY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]])
EVIL = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The steps through batch norm of the four students, traced."""
    file = tmp_path_factory.mktemp("program") / "bn.py"
    file.write_text(PROGRAM)
    spec = importlib.util.spec_from_file_location("bn", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = mb.Tensor([[7, 70], [8, 80], [9, 90], [6, 60]], requires_grad=True, name="x")
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]), name="gamma")
    beta = mb.nn.Parameter(np.array([0.0, 3.0]), name="beta")
    return mb.steps(mb.trace(module.batch_norm, x, gamma, beta), grad_output=DY)


def contents(text):
    """Read the data out of a page."""
    return json.loads(re.search(r'id="walk">(.*?)</script>', text, re.S)[1])


# The file -----------------------------------------------------------------------------------------


def test_the_policy_allows_only_the_script_and_the_style_that_are_there(walk):
    text = pages.page(walk)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)

    def digest(block):
        return f"'sha256-{b64encode(sha256(block.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": digest(script),
        "style-src": digest(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r'(style|onclick|onload|href|src)="', text)
    assert "innerHTML" not in script
    assert "\r" not in text


def test_a_page_is_small(walk):
    assert len(pages.page(walk).encode()) < 120_000


def test_write_replaces_a_file_only_once_the_page_is_complete(walk, tmp_path, monkeypatch):
    path = tmp_path / "bn.html"
    pages.write(walk, path)
    assert path.read_bytes() == pages.page(walk).encode()

    def fail(content):
        raise ZeroDivisionError

    monkeypatch.setattr(pages, "_json", fail)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        pages.write(walk, path)
    assert path.read_bytes() == before


def test_the_data_name_every_step_and_node(walk):
    found = contents(pages.page(walk))
    assert [step["k"] for step in found["steps"]] == [step.kind for step in walk]
    assert [step["f"] for step in found["steps"]] == [step.formula for step in walk]
    assert found["backward"] == walk.backward
    names = {node["name"]: node for node in found["nodes"]}
    assert walk[names["centered"]["step"]].node.name == "centered"
    assert names["x"]["step"] == 0
    complete = walk[names["centered"]["final"]]
    assert complete.final
    assert complete.node.name == "centered"
    assert [node["i"] for node in found["nodes"]] == list(range(len(found["nodes"])))
    assert found["title"] == walk.title


def test_one_array_may_be_explained_in_two_ways():
    """As the result of one step, and as a part of the next."""
    value, half = np.array([4.0]), np.array([2.0])
    hows = [
        How(t, (Operand("half", half, None, 0, (1,)),), (1,)) for t in ("{0}²", "{0} × 2", "{0}²")
    ]
    walk = steps_with()
    walk[1:] = [Step(1, "end", rows=(tuple(Shown("four", value, None, how) for how in hows),))]
    found = pages.data(walk)
    (row,) = found["steps"][1]["r"]
    assert len({table["a"] for table in row}) == 1
    assert [found["how"][table["h"]]["t"] for table in row] == ["{0}²", "{0} × 2", "{0}²"]
    assert row[0] == row[2]


def test_arrays_are_stored_once_with_eight_digits(walk):
    found = contents(pages.page(walk))
    centered = [
        item["a"] for step in found["steps"] for row in step["r"] for item in row
        if isinstance(item, dict) and item["c"] == "centered"
    ]  # fmt: skip
    assert len(centered) > 1
    assert len(set(centered)) == 1
    assert found["arrays"][centered[0]]["e"] == [-0.5, -5, 0.5, 5, 1.5, 15, -1.5, -15]
    digits = [len(str(abs(v)).replace(".", "").lstrip("0").split("e")[0])
              for a in found["arrays"] for v in a["e"]]  # fmt: skip
    assert max(digits) <= 8


def steps_with(*values):
    """A walk of one step that shows some arrays."""
    walk = mb.steps(mb.Tensor(1.0, requires_grad=True) * 2)
    rows = tuple((Shown(f"table {k}", np.asarray(value)),) for k, value in enumerate(values))
    walk[1:] = [Step(1, "end", rows=rows)]
    walk.backward = None
    return walk


@pytest.mark.parametrize(
    ("count", "size", "stored"),
    [(20, 1024, 1024), (1, 1025, 6), (100, 300, 6), (100, 256, 256), (400, 64, 64), (720, 42, 6)],
)
def test_of_many_large_arrays_only_corners_are_stored(count, size, stored):
    arrays = [np.zeros(size) for _ in range(count)]
    found = pages.data(steps_with(*arrays))["arrays"][1:]
    assert {len(array["e"]) for array in found if array["shape"] == [size]} == {stored}
    assert sum(len(array["e"]) for array in found) < 30_000


def test_the_corner_of_a_large_array_is_that_of_its_first_matrix():
    big = np.arange(20 * 30 * 40.0).reshape(20, 30, 40)
    big[3, 3, 3] = np.nan
    found = pages.data(steps_with(big))["arrays"][-1]
    assert found["e"] == big[0, :6, :6].ravel().tolist()
    assert (found["rows"], found["cols"]) == (6, 6)
    assert "1 not finite" in found["digest"]


def test_what_json_has_no_word_for_is_text():
    values = np.array([np.nan, np.inf, -np.inf, 1 / 3, 2.0, 1e300])
    first, second = pages.data(steps_with(values, np.array([True, False])))["arrays"][-2:]
    assert first["e"] == ["nan", "inf", "-inf", 0.33333333, 2, 1e300]
    assert second["e"] == [True, False]


def test_source_is_shown_around_what_is_used_and_without_its_folder(walk):
    found = contents(pages.page(walk))
    (source,) = found["sources"]
    assert source["file"] == "bn.py"
    assert source["first"] == 4
    assert source["lines"] == PROGRAM.splitlines()[3:17]
    assert source["lines"][walk[1].source.line - 4].strip() == "mean = np.mean(x, axis=0)"
    assert str(walk[1].source.file).rsplit("/", 1)[0] not in pages.page(walk)


def test_of_a_file_that_is_gone_the_known_lines_are_shown():
    known = mb.graph.parts.Source(r"C:\secret\gone.py", 7, "y = x * x")
    sources = pages._Sources([known, None])
    assert sources.place(known) == [0, 7]
    assert sources.data() == [{"file": "gone.py", "first": 7, "lines": ["y = x * x"]}]


# In a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests."""
    if not HAS_PIPE or not browsers.executable():
        pytest.skip("no Chromium on PATH: the page is not tried in a browser")
    found = browsers.Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def file(walk, tmp_path_factory):
    """The page of batch norm."""
    path = tmp_path_factory.mktemp("page") / "bn.html"
    pages.write(walk, path)
    return path


@pytest.fixture
def shown(browser, file):
    """The page of batch norm, in a browser, at its first step; without complaints at the end."""
    open_page(browser, file.as_uri())
    yield browser
    assert browser.complaints() == []
    assert not [url for url in browser.requests() if not url.startswith(("file:", "about:"))]


def open_page(browser, url, width=1280, height=800, **features):
    browser.resize(width, height)
    browser.prefer(prefers_reduced_motion="reduce", **features)
    browser.open(url)


def text(browser, selector):
    return browser.run(f"document.querySelector({json.dumps(selector)}).textContent")


def step(browser):
    return int(re.search(r"(\d+) of", text(browser, "#count"))[1])


def formula(browser):
    return text(browser, "#formula")


def index_of(walk, kind, name):
    """The last step of a kind at a node."""
    return max(
        s.index for s in walk if s.kind == kind and s.node and walk.names[s.node.index] == name
    )


def test_it_starts_with_what_is_given(shown, walk):
    assert step(shown) == 0
    assert text(shown, "#title") == walk.title
    assert text(shown, "#phase") == "FORWARD"
    assert text(shown, "#sentence") == walk[0].sentence
    assert shown.run("document.title") == walk.title


def test_keys(shown, walk):
    last = len(walk) - 1
    ways = [
        ("ArrowRight", 1), ("l", 2), ("j", 3), ("ArrowLeft", 2), ("h", 1), ("k", 0), ("k", 0),
        ("End", last), ("ArrowRight", last), ("Home", 0), ("b", walk.backward),
        ("ArrowRight", walk.backward + 1), ("b", 0),
    ]  # fmt: skip
    for key, expected in ways:
        shown.press(key)
        assert step(shown) == expected, key
        assert formula(shown) == walk[expected].formula


def test_b_leads_back_to_where_one_was(shown, walk):
    shown.run("go(4)")
    shown.press("b")
    assert text(shown, "#phase") == "BACKWARD"
    assert text(shown, "#jump") == "To forward"
    shown.press("b")
    assert step(shown) == 4


def test_buttons_and_slider(shown, walk):
    last = len(walk) - 1
    for button, expected in [("forward", 1), ("last", last), ("back", last - 1), ("first", 0)]:
        shown.click(f"#{button}")
        assert step(shown) == expected
    shown.click("#jump")
    assert step(shown) == walk.backward
    shown.run("document.querySelector('#slider').focus()")
    shown.press("ArrowRight")  # one step, not two
    assert step(shown) == walk.backward + 1
    shown.run("slider.value = 3; slider.dispatchEvent(new Event('input'))")
    assert step(shown) == 3
    assert "step 3 of" in shown.run("slider.getAttribute('aria-valuetext')")


def test_play_goes_on_by_itself_until_it_is_stopped(shown):
    shown.press(" ")
    assert text(shown, "#play").strip() == "Pause"
    shown.wait(lambda: step(shown) >= 1)
    shown.press(" ")
    assert text(shown, "#play").strip() == "Play"
    shown.press("End")
    shown.press(" ")  # from the end it starts anew
    assert step(shown) == 0
    shown.press("ArrowRight")  # whoever steps has stopped it
    assert text(shown, "#play").strip() == "Play"


def test_tables_show_the_values_of_a_step(shown, walk):
    shown.run(f"go({index_of(walk, 'forward', 'centered')})")
    tables = shown.run(
        "[...document.querySelectorAll('#rows figure')].map(f => [f.querySelector('b').textContent,"
        "[...f.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))])"
    )
    assert tables == [
        ["x", [["7", "70"], ["8", "80"], ["9", "90"], ["6", "60"]]],
        ["mean", [["7.5", "75"]]],
        ["centered", [["−0.5", "−5"], ["0.5", "5"], ["1.5", "15"], ["−1.5", "−15"]]],
    ]
    assert shown.run("document.querySelectorAll('.table.result').length") == 1
    classes = "[...document.querySelectorAll('.result td')].slice(0, 3).map(c => c.className)"
    assert shown.run(classes) == ["negative", "negative", "positive"]


def cell(table, row, column):
    return f"figure[data-table='{table}'] tr:nth-child({row + 1}) td:nth-child({column + 1})"


def test_why_this_number(shown, walk):
    shown.run(f"go({index_of(walk, 'forward', 'centered')})")
    shown.click(cell(2, 2, 0))
    assert why(shown) == ["centered[2, 0] = x[2, 0] − mean[0]", "= 9 − 7.5 = 1.5"]
    lit = shown.run("[...document.querySelectorAll('.from')].map(c => c.textContent)")
    assert lit == ["9", "7.5"]
    shown.click(cell(2, 2, 0))
    assert why(shown) == []
    assert shown.run("document.querySelectorAll('.from, .chosen').length") == 0


def why(browser):
    return browser.run("[...document.querySelectorAll('.why p')].map(p => p.textContent)")


def test_why_a_mean(shown, walk):
    shown.run(f"go({index_of(walk, 'forward', 'mean')})")
    shown.click(cell(1, 0, 1))
    names, numbers = why(shown)
    assert names == "mean[1] = (x[0, 1] + x[1, 1] + x[2, 1] + x[3, 1]) ÷ 4"
    assert numbers == "= (70 + 80 + 90 + 60) ÷ 4 = 75"
    assert shown.run("document.querySelectorAll('.from').length") == 4


def test_arrows_move_in_a_table_and_enter_explains(shown, walk):
    at = index_of(walk, "forward", "centered")
    shown.run(f'go({at}); document.querySelector("{cell(2, 0, 0)}").focus()')
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown"):
        shown.press(key)
    assert step(shown) == at  # the arrows were the table's
    shown.press("Enter")
    assert why(shown)[0].startswith("centered[2, 1] = ")
    stops = "document.querySelectorAll(\"figure[data-table='2'] td[tabindex='0']\").length"
    assert shown.run(stops) == 1
    shown.press("Escape")
    assert why(shown) == []
    shown.press("ArrowRight")  # Escape has left the table
    assert step(shown) == at + 1


def test_only_results_stand_out(browser, walk, tmp_path):
    found = {}
    for sign in ("=", "→", "≈", ","):
        row = (Shown("a", np.ones(2)), sign, Shown("b", np.ones(2)))
        walk = steps_with()
        walk[1:] = [Step(1, "end", rows=(row, (Shown("c", np.ones(2)),)))]
        path = tmp_path / "rows.html"
        pages.write(walk, path)
        open_page(browser, path.as_uri() + "#step=1")
        found[sign] = browser.run(
            "[...document.querySelectorAll('.result b')].map(b => b.textContent).join()"
        )
    assert found == {"=": "b", "→": "b", "≈": "", ",": ""}


def test_a_constant_is_shown_as_its_number(shown, walk):
    at = index_of(walk, "forward", "var + 1e-05")
    shown.run(f"go({at})")
    constant = "document.querySelector('.constant')"
    assert shown.run(f"{constant}.querySelector('td').textContent") == "1e−5"
    assert shown.run(f"{constant}.getBoundingClientRect().height") < 40


def test_the_space_bar_plays_after_a_click(shown, walk):
    shown.click("#forward")
    shown.press(" ")
    assert text(shown, "#play").strip() == "Pause"
    shown.click(f"[data-node='{walk[2].node.index}']")
    assert step(shown) == 2
    shown.press(" ")
    assert text(shown, "#play").strip() == "Pause"


def test_the_whole_number_is_under_the_mouse(shown, walk):
    at = index_of(walk, "forward", "x_hat")
    shown.run(f"go({at})")
    shown.click(cell(2, 0, 0))
    whole = f"{walk[at].result.value[0, 0]:.8g}".replace("-", "−")
    assert len(whole) > 8
    assert shown.run("document.querySelector('.chosen').title") == f"x_hat[0, 0] = {whole}"


def test_why_reads_as_in_the_terminal(shown, walk):
    """The page writes with names and colours what `How.entry` writes with numbers."""
    checked = 0
    for s in walk:
        shown.run(f"go({s.index})")
        tables = [item for row in s.rows for item in row if isinstance(item, Shown)]
        for k, table in enumerate(tables):
            if table.how is None:
                continue
            shape = np.shape(table.value)
            index = tuple(n - 1 for n in shape)
            flat = int(np.prod(shape)) - 1
            shown.run(f"forget(); ask(shownTables[{k}].cells.get({flat}))")
            _, numbers = why(shown)
            said = table.how.entry(index)
            if not re.search(r"\de", said):  # exponents are written as in Python there
                assert numbers.removeprefix("= ").split(" = ")[0] == said
                checked += 1
    assert checked > 15


def test_a_click_on_a_node_goes_to_its_step(shown, walk):
    by_name = {name: i for i, name in walk.names.items()}
    node = f"[data-node='{by_name['mean']}']"
    shown.click(node)
    assert step(shown) == index_of(walk, "forward", "mean")
    shown.press("b")
    shown.click(node)
    assert walk[step(shown)].final
    assert walk[step(shown)].node.name == "mean"
    shown.run(f"document.querySelector(\"[data-node='{by_name['x']}']\").focus()")
    shown.press("Enter")
    assert walk[step(shown)].node.name == "x"


def test_scopes_close_and_open(shown):
    def boxes():
        return shown.run("document.querySelectorAll('#picture .node').length")

    open_ = boxes()
    shown.click("[data-close]")
    assert boxes() < open_
    shown.run("document.querySelector('[data-open]').focus()")
    shown.press(" ")
    assert boxes() == open_
    assert shown.run("document.activeElement.dataset.close") is not None  # the focus goes along
    shown.run("document.activeElement.blur()")
    shown.press("c")
    assert boxes() < open_
    shown.press("c")
    assert boxes() == open_


def test_over_to_the_next_box_of_the_picture(shown, walk):
    shown.press("c")
    names = set()
    shown.press("ArrowRight")
    inside = walk[1].node.scope
    assert inside
    shown.press("ArrowRight", shift=True)
    assert step(shown) > 2
    assert walk[step(shown)].node.scope != inside
    shown.press("ArrowLeft", shift=True)
    names.add(walk[step(shown)].node.scope)
    assert names == {inside}


def test_the_nearest_view_is_shown_where_not_every_one_is_there(shown):
    """Closed is what was asked for, and as little else as there is a picture of."""
    shown.run(
        "walk.scopes[70] = {title: 'a', parent: null}; walk.scopes[71] = {title: 'b', parent: 70};"
        "const base = walk.views[0];"
        "for (const closed of [[70, 0], [70], [71]]) {"
        "  walk.views.push({...base, closed}); views.push(null); }"
    )
    closed = "state.view.data.closed.join()"
    for place, close, expected in [
        (70, "true", "70"),
        (71, "false", ""),  # it lies within 70
        (71, "true", "71"),
        (70, "true", "70"),
        (0, "true", "70,0"),
        (70, "false", "0"),
    ]:
        shown.run(f"toggle({place}, {close})")
        assert shown.run(closed) == expected


def test_marks_on_the_graph(shown, walk):
    by_name = {name: i for i, name in walk.names.items()}

    def classes(name):
        found = shown.run(
            f"document.querySelector(\"[data-node='{by_name[name]}']\").getAttribute('class')"
        )
        return set(found.split()) - {"node", "op", "input", "parameter", "output"}

    shown.run(f"go({index_of(walk, 'forward', 'centered')})")
    assert classes("mean") == {"done"}
    assert classes("centered") == {"done", "active"}
    assert classes("var") == {"pale"}
    first = min(s.index for s in walk if s.kind == "edge" and s.node.name == "centered")
    shown.run(f"go({first})")
    assert classes("centered") == {"done", "active", "part"}
    assert classes("x_hat") == {"done", "via", "full"}
    shown.run(f"go({index_of(walk, 'edge', 'centered')})")
    assert classes("centered") == {"done", "active", "full"}
    assert shown.run("document.querySelectorAll('.edge.active').length") == 1


def test_arrows_turn_round_in_the_backward_pass(shown):
    heads = (
        "[...document.querySelectorAll('.edge .head')].map(h => h.getAttribute('d').split('L')[0])"
    )
    forward = shown.run(heads)
    shown.press("b")
    backward = shown.run(heads)
    assert all(f != b for f, b in zip(forward, backward, strict=True))
    shown.press("b")
    assert shown.run(heads) == forward


def test_edges_show_how_far_the_gradient_has_come(shown, walk):
    done = "state.view.edges.filter(e => /done/.test(e.names)).length"
    edges = shown.run("state.view.edges.length")
    carried = []
    for k in range(walk.backward, len(walk)):
        shown.run(f"go({k})")
        carried.append(shown.run(done))
    assert carried[0] == 0
    assert carried[-1] == edges
    assert carried == sorted(carried)
    shown.run(f"go({walk.backward - 1})")
    assert shown.run(done) == edges


def test_an_arrow_of_a_sum_is_that_of_its_edge(shown, walk):
    s = next(s for s in walk if s.kind == "sum")
    shown.run(f"go({s.index})")
    assert shown.run("[...state.view.edges].filter(e => /active/.test(e.names)).length") == 1
    assert "added up" in text(shown, "#where")


def test_a_cast_is_called_so(browser, tmp_path):
    x = mb.Tensor(np.float32([1.0, 2.0]), requires_grad=True, name="x")
    walk = mb.steps(x * np.array([3.0, 4.0]), grad_output=np.ones(2))
    s = next(s for s in walk if s.kind == "sum")
    path = tmp_path / "cast.html"
    pages.write(walk, path)
    open_page(browser, f"{path.as_uri()}#step={s.index}")
    assert text(browser, "#where").startswith("from ")
    assert "x, converted" in text(browser, "#where")
    assert browser.complaints() == []


def test_source_is_lit(shown, walk):
    shown.resize(1280, 460)  # so that not all of it can be seen
    for s in (walk[1], walk[-2]):
        shown.run(f"go({s.index})")
        assert text(shown, ".lit code").strip() == s.source.text.strip()
        top, bottom, low, high = shown.run(
            "[source.lit, $('code')].map(e => e.getBoundingClientRect())"
            ".flatMap(r => [r.top, r.bottom])"
        )
        assert low <= top
        assert bottom <= high + 1
    shown.click(f"[data-line='{walk[1].source.line}']")
    assert walk[step(shown)].source == walk[1].source


def test_deep_links(browser, file):
    open_page(browser, file.as_uri() + "#step=7")
    assert step(browser) == 7
    browser.press("ArrowRight")
    before = browser.run("history.length")
    browser.wait(lambda: browser.run("location.hash") == "#step=8")
    assert browser.run("history.length") == before
    browser.run("location.hash = '#step=3'")
    browser.wait(lambda: step(browser) == 3)
    for wrong, expected in [("#step=999999", None), ("#step=x", 0), ("#<b>", 0)]:
        open_page(browser, file.as_uri() + wrong)
        assert step(browser) == (browser.run("last") if expected is None else expected)
    assert browser.complaints() == []


def test_search(shown, walk):
    shown.press("/")
    assert shown.run("document.querySelector('#search').open")
    for letter in "cent":
        shown.press(letter)
    hits = shown.run("[...document.querySelectorAll('#found b')].map(b => b.textContent)")
    assert hits[0] == "centered"
    assert shown.run("document.querySelector('[aria-selected=true] b').textContent") == "centered"
    shown.press("ArrowDown")
    assert shown.run("query.getAttribute('aria-activedescendant')") == "hit1"
    shown.press("ArrowUp")
    shown.press("Enter")
    assert not shown.run("document.querySelector('#search').open")
    assert step(shown) == index_of(walk, "forward", "centered")
    shown.press("g")
    for letter in "var":
        shown.press(letter)
    hits = shown.run("[...document.querySelectorAll('#found b')].map(b => b.textContent)")
    assert hits[:2] == ["var", "var + 1e-05"]
    for letter in "zzz":
        shown.press(letter)
    assert text(shown, "#none")
    shown.press("Enter")
    shown.press("Escape")
    assert step(shown) == index_of(walk, "forward", "centered")


def test_help(shown):
    shown.press("?")
    assert shown.run("document.querySelector('#help').open")
    assert "backward pass" in text(shown, "#help")
    shown.press("ArrowRight")  # not while it is open
    assert step(shown) == 0
    shown.press("Escape")
    assert not shown.run("document.querySelector('#help').open")


def test_latex_can_be_copied(shown, walk):
    shown.run("go(2); document.querySelector('#latex').open = true")
    assert text(shown, "#tex") == walk[2].latex
    shown.click("#copy")
    shown.wait(lambda: text(shown, "#copy") == "Copied")


def test_everything_has_a_name_and_the_focus_goes_as_one_reads(shown):
    nameless = shown.run(
        "[...document.querySelectorAll('button, [role=button], input')].filter(e =>"
        " !e.closest('[hidden]') && !(e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    assert nameless == 0
    for landmark in ("header", "main", "nav"):
        assert shown.run(f"document.querySelectorAll('{landmark}').length") == 1
    assert shown.run("sentence.getAttribute('aria-live')") == "polite"
    assert shown.run("document.documentElement.lang") == "en"
    shown.run("go(2)")
    areas = []
    for _ in range(60):
        shown.press("Tab")
        area = shown.run(
            "document.activeElement.closest('header, #graph, #explanation, #source, nav')?.tagName"
        )
        if area and (not areas or areas[-1] != area):
            areas.append(area)
        if area == "NAV":
            break
    assert areas == ["HEADER", "SECTION", "ARTICLE", "SECTION", "NAV"]
    outline = shown.run(
        "(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert outline == ["solid", "2px"]


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const over = (a, b) => a.slice(0, 3).map((v, n) => (v * a[3] + b[n] * (255 - a[3])) / 255);
  const ground = e => { if (!e) return [255, 255, 255];
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 255 ? own : over(own, ground(e.parentElement)); };
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v =>
      v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const worst = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length) continue;
    if (e.closest('[aria-disabled=true], script, noscript')) continue;
    let [front, back] = [];
    if (e.closest('svg')) {
      const box = e.closest('.node')?.querySelector('.box');
      front = rgba(getComputedStyle(e).fill);
      back = rgba(box ? getComputedStyle(box).fill : getComputedStyle($('graph')).backgroundColor);
    } else { front = rgba(getComputedStyle(e).color); back = ground(e); }
    const [a, b] = [light(over(front, back)), light(back)];
    worst.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.id || e.className.baseVal
      || e.className || e.tagName, e.textContent.slice(0, 30)]);
  }
  return worst.sort((a, b) => a[0] - b[0])[0];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(browser, file, walk, scheme):
    open_page(browser, file.as_uri(), prefers_color_scheme=scheme)
    for k in range(0, len(walk), 3):
        browser.run(
            f"go({k}); shownTables.at(-1).how && ask([...shownTables.at(-1).cells.values()][0])"
        )
        worst = browser.run(CONTRAST)
        assert worst[0] >= 4.5, (k, worst)
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (768, 1024), (380, 800)])
def test_nothing_sticks_out_at_any_size(browser, file, walk, size, scheme):
    open_page(browser, file.as_uri(), *size, prefers_color_scheme=scheme)
    for k in (0, 2, walk.backward, len(walk) - 3, len(walk) - 1):
        browser.run(f"go({k})")
        assert browser.run("document.documentElement.scrollWidth") <= size[0]
        out = browser.run(
            "[...document.querySelectorAll('header, nav, #explanation, #sentence, #formula, "
            "figure, button')].filter(e => !e.hidden && e.id !== 'skip')"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5"
            " || e.scrollWidth > e.clientWidth + 1 && e.matches('#explanation, nav, header'))"
            ".map(e => e.id || e.tagName)"
        )
        assert out == [], (k, out)
        bottom = browser.run("document.querySelector('nav').getBoundingClientRect().bottom")
        assert math.isclose(bottom, size[1], abs_tol=1)
    if size[0] == 380:
        heights = browser.run(
            "[...document.querySelectorAll('nav button')].map(b => b.offsetHeight)"
        )
        assert min(heights) >= 44  # for thumbs
    background = browser.run("getComputedStyle(document.querySelector('#graph')).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 23, 42)"}[scheme]
    assert browser.complaints() == []


def test_the_graph_scrolls_to_what_happens(shown, walk):
    shown.run("zoom(2.5)")
    for k in (1, index_of(walk, "forward", "y"), walk.backward + 2, len(walk) - 2):
        shown.run(f"go({k})")
        inside = shown.run(
            "(([a, b]) => a.top >= b.top && a.bottom <= b.bottom && a.left >= b.left - 1"
            " && a.right <= b.right + 1)([document.querySelector('.node.active .box'), "
            "$('picture')].map(e => e.getBoundingClientRect()))"
        )
        assert inside, k


def test_motion_only_for_those_who_like_it(browser, file):
    for motion, expected in [("reduce", "none"), ("no-preference", "flow")]:
        open_page(browser, file.as_uri())
        browser.prefer(prefers_reduced_motion=motion)
        browser.run("go(2)")
        found = browser.run(
            "getComputedStyle(document.querySelector('.edge.active .line')).animationName"
        )
        assert found == expected


# Data that mean harm ------------------------------------------------------------------------------


def test_text_is_never_markup(browser, tmp_path):
    x = mb.Tensor([[1.0, 2.0]], requires_grad=True, name=EVIL)
    with mb.scope(EVIL):
        y = (x * x).named("${alert(1)}{{walk}}" + EVIL)
    walk = mb.steps((y + 1).sum())
    source = mb.graph.parts.Source(f"/tmp/{EVIL}.py", 1, EVIL)
    how = How("{0}" + EVIL, (Operand(EVIL, np.array([2.0]), None, 0, (1,)),), (1,))
    table = Shown(EVIL, np.array([2.0]), None, how)
    walk.append(
        Step(len(walk), "end", formula=EVIL, latex=EVIL, sentence=EVIL, rows=((table, EVIL),),
             remark=EVIL, source=source)
    )  # fmt: skip
    walk.title, walk.remarks = EVIL, (EVIL,)
    page = pages.page(walk)
    assert page.count("<script") == 2
    assert "<img" not in page
    path = tmp_path / "evil.html"
    path.write_text(page, encoding="utf-8")
    open_page(browser, path.as_uri())
    assert text(browser, "#title") == EVIL
    assert browser.run("document.title") == EVIL
    assert text(browser, ".remark") == EVIL
    for k in range(len(walk)):
        browser.run(f"go({k})")
    assert text(browser, "#formula") == text(browser, "#sentence") == text(browser, "#tex") == EVIL
    assert text(browser, "figcaption b") == EVIL
    assert text(browser, "#code .lit code") == EVIL
    browser.run("ask(document.querySelector('td'))")
    assert EVIL in why(browser)[0]
    browser.press("c")
    browser.run("document.activeElement.blur(); openSearch()")
    browser.press("Escape")
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('img, iframe').length") == 0
    assert browser.run("document.scripts.length") == 2
    assert browser.complaints() == []
    assert not [url for url in browser.requests() if not url.startswith(("file:", "about:"))]


def test_in_a_notebook_it_lives_in_a_frame_without_an_origin(browser, walk, tmp_path):
    page = html.escape(pages.page(walk))
    frame = f'<iframe sandbox="allow-scripts" width="900" height="600" srcdoc="{page}"></iframe>'
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}", encoding="utf-8")
    open_page(browser, path.as_uri())
    with browser.frame():
        browser.wait(lambda: browser.run("document.readyState") == "complete")
        browser.run("go(3); KEYS.b(); KEYS['?']()")
        assert step(browser) == walk.backward
        assert browser.run("document.querySelector('#help').open")
        browser.run("new Promise(done => setTimeout(done, 400))")  # it would have set its link
    assert browser.complaints() == []


# Other programs -----------------------------------------------------------------------------------


def test_numbers_that_are_not_finite_stand_out(browser, tmp_path):
    x = mb.Tensor([[1.0, -2.0], [0.0, 1e-5]], requires_grad=True, name="x")
    with np.errstate(all="ignore"):
        walk = mb.steps(np.log(x).sum())
    path = tmp_path / "nan.html"
    pages.write(walk, path)
    open_page(browser, path.as_uri())
    assert "step 1" in text(browser, "#strange")
    browser.click("#strange")
    assert step(browser) == 1
    cells = browser.run("[...document.querySelectorAll('.result td')].map(c => c.textContent)")
    assert cells == ["0", "nan", "−inf", "−11.51"]
    marked = browser.run("[...document.querySelectorAll('td.strange')].map(c => c.textContent)")
    assert marked == ["nan", "−inf"]
    assert browser.complaints() == []


def test_arrays_of_all_sizes(browser, tmp_path):
    values = [
        np.float64(2.5), np.arange(3.0), np.arange(24.0).reshape(2, 3, 4), np.zeros((0, 3)),
        np.arange(5000.0).reshape(50, 100), np.ones((2, 1, 1, 30, 30)), np.array([True, False]),
        -1e-6 * np.sqrt(np.arange(2000.0)),
    ]  # fmt: skip
    path = tmp_path / "sizes.html"
    pages.write(steps_with(*values), path)
    open_page(browser, path.as_uri() + "#step=1", 380, 800)
    rows = (
        "[...document.querySelectorAll('figure')].map(f => ["
        "f.querySelector('figcaption span').textContent,"
        "f.querySelectorAll('table').length, f.querySelectorAll('td:not(.more)').length,"
        "[...f.querySelectorAll('p')].map(p => p.textContent.slice(0, 9))])"
    )
    assert browser.run(rows) == [
        ["scalar", 1, 1, []],
        ["3", 1, 3, []],
        ["2×3×4", 2, 24, ["[0]", "[1]"]],
        ["0×3", 1, 0, ["empty"]],
        ["50×100", 1, 36, ["mean 2500"]],
        ["2×1×1×30×30", 1, 36, ["[0, 0, 0]", "… 1 more", "mean 1 ± "]],
        ["2", 1, 2, []],
        ["2000", 1, 6, ["mean −2.9"]],
    ]
    assert (
        browser.run("document.querySelectorAll('figure')[6].querySelector('td').textContent")
        == "True"
    )
    shares = "[0, 1].map(k => [...shownTables[k].cells.values()].at(-1).style.cssText)"
    assert browser.run(shares) == ["--share: 33%;", "--share: 100%;"]  # a number is not coloured so
    assert browser.run("$('reading').scrollWidth <= $('reading').clientWidth")
    assert browser.complaints() == []


def test_numbers_are_short(shown):
    values = {
        1.5: "1.5", -0.44721359: "−0.4472", 70.0: "70", 12345.6: "12346", 1e-5: "1e−5", 0.0: "0",
        123456.0: "1.235e5", 1234.5678: "1235", 0.001: "0.001", -1e-100: "−1e−100", 9999.6: "10000",
    }  # fmt: skip
    assert shown.run(f"{json.dumps(list(values))}.map(v => short(v))") == list(values.values())


def test_without_pictures_there_is_a_list(browser, walk, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "views", lambda graph: [])
    x = mb.Tensor(0.5, requires_grad=True, name="x")
    for _ in range(400):
        x = np.tanh(x)
    walk = mb.steps(x)
    path = tmp_path / "list.html"
    pages.write(walk, path)
    open_page(browser, path.as_uri())
    for k in (0, 200, 399, walk.backward + 30, len(walk) - 1):
        browser.run(f"go({k})")
        assert browser.run("document.querySelectorAll('.list button').length") <= 200
        if walk[k].node:
            active = browser.run("document.querySelector('.list .active').dataset.node")
            assert int(active) == walk[k].node.index
    browser.press("Home")
    browser.click(".list .more")
    browser.click(".list [data-node='200']")
    assert step(browser) == 200
    assert browser.complaints() == []


def test_a_forward_pass_alone(browser, tmp_path):
    with mb.tracing() as trace:
        y = mb.Tensor([1.0, 2.0]) * 2 + 1
    assert not y.requires_grad
    walk = mb.steps(trace)
    assert walk.backward is None
    path = tmp_path / "forward.html"
    pages.write(walk, path)
    open_page(browser, path.as_uri())
    browser.press("End")
    browser.press("b")
    assert step(browser) == len(walk) - 1
    assert text(browser, "#phase") == "FORWARD"
    assert browser.run("getComputedStyle(document.querySelector('#jump')).display") == "none"
    assert browser.complaints() == []


def test_where_a_program_failed(browser, tmp_path):
    x = mb.Tensor([1.0, 2.0], requires_grad=True, name="x")
    said = "ShapeError: (2,) and (3,) do not fit"
    source = mb.graph.parts.Source("/tmp/fails.py", 3, "y = x + z")
    walk = Walk(mb.Graph.from_outputs(x * x), "fails.py", failure=Failure(said, source))
    path = tmp_path / "fails.html"
    pages.write(walk, path)
    open_page(browser, path.as_uri())
    browser.press("End")
    assert text(browser, "#phase") == "ERROR"
    assert said in text(browser, "#explanation")
    assert text(browser, ".lit code") == "y = x + z"
    assert browser.complaints() == []


def test_a_page_of_two_hundred_nodes_stays_small(browser, tmp_path):
    rng = np.random.default_rng(0)
    h = mb.Tensor(rng.normal(size=(4, 5)), requires_grad=True, name="x")
    for k in range(33):
        with mb.scope(f"block{k}"):
            w = mb.Tensor(rng.normal(size=(5, 5)), requires_grad=True, name=f"w{k}")
            b = mb.Tensor(rng.normal(size=5), requires_grad=True, name=f"b{k}")
            h = np.tanh(h @ w + b) * 0.9 + h
    walk = mb.steps((h * h).sum())
    path = tmp_path / "two.html"
    pages.write(walk, path)
    assert path.stat().st_size < 1_000_000
    open_page(browser, path.as_uri())
    browser.run("for (let k = 0; k <= last; k++) go(k)")
    assert step(browser) == len(walk) - 1
    assert browser.complaints() == []
