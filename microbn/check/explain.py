"""Explanations of a wrong gradient: which single faults, and which paths, account for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import engine, kernels
from ..graph.paths import Link, title
from ..kernels import Array
from .faults import faults, lookalikes, summed
from .fit import channels, counts, factor_of, fits, solve, values
from .reference import rule_of
from .terms import MOST, SUMS, Branch, Terms
from .variants import STAGES, gradient, variants
from .words import causes, counting, snap

EDGES = 300  # on the way to the input, of which each is looked at


@dataclass(frozen=True)
class Explanation:
    """One way to come to the wrong gradient.

    ``effect`` is what it does to the gradient, in short: ``var × 1/2``, ``operand: x in place of
    centered``. ``text`` says it in a sentence, ``causes`` are what people do that has this effect.
    ``coefficients`` are by path, where it only multiplies; ``residual`` is what it leaves.
    """

    effect: str
    text: str
    causes: tuple[str, ...] = ()
    coefficients: tuple[Array, ...] = ()
    residual: Array | None = None
    rank: int = 0
    source: str = ""

    def __str__(self) -> str:
        if not self.causes:
            return self.text
        several = len(self.causes) > 1
        said = f"{self.text} Usual cause{'s' * several}: {'; '.join(self.causes)}."
        if several:
            said += f" {self.source} alone cannot tell which: give the staged gradients to compare."
        return said


def all_that_fit(terms: Terms, found: Array) -> list[Explanation]:
    """Return every explanation that accounts for the whole error, the simplest first."""
    off = found - terms.total
    made = [*_of_branches(terms, off)]
    made += _of_rules(terms, off)
    if not any(e.rank <= OPERAND for e in made):
        made += _of_paths(terms, off)
    if not any(e.rank < UNKNOWN for e in made):
        made += _of_variants(terms, found)
    made.sort(key=lambda e: e.rank)
    found_, seen = list[Explanation](), set[str]()
    for e in [e for e in made if e.rank < UNKNOWN] or made:
        if found_ and e.rank == OPERAND and found_[0].rank < OPERAND:  # a way to come to that
            more = tuple(c for c in e.causes if not c.startswith(found_[0].causes or " "))
            found_[0] = replace(found_[0], causes=(*found_[0].causes, *more))
        elif e.effect not in seen:
            seen.add(e.effect)
            found_.append(replace(e, source=f"d {terms.x.name}"))
    return found_


OPERAND = 2  # the rank of rules with a wrong operand
UNKNOWN = 5  # the rank of coefficients that nothing is known to stand for


# One edge that counts differently ----------------------------------------------------------------


def _of_branches(terms: Terms, off: Array) -> Iterator[Explanation]:
    every = channels(terms)
    for branch in terms.branches if len(terms.links) <= EDGES else ():
        for axes in every:
            factor, loose = factor_of(branch.value, off, axes, terms)
            left = off - (factor - 1) * branch.value
            if not fits(left, terms, (np.abs(factor - 1) * np.abs(branch.value))):
                continue
            snapped = snap(factor, loose, counts(terms), values(terms, factor.shape))
            if not _labels(terms, branch):  # on a path that is null
                break
            if snapped is None and factor.size == off.size > 1:
                continue  # each entry has a factor of its own: anything can be written like this
            yield _factor(terms, branch, factor, snapped, left, len(axes))
            break


def _factor(
    terms: Terms, branch: Branch, factor: Array, snapped: str | None, left: Array, axes: int
) -> Explanation:
    text = snapped or _number(factor)
    labels = _labels(terms, branch)
    where = " and ".join(f"{label} × {text}" for label in labels)
    said = dict.fromkeys(c for link in branch.links for c in causes(link, text))
    if text == "0":
        said = dict.fromkeys(_of_missing(terms, branch))
    elif text == "2" and not said and labels != ["everything"]:
        said = {"added twice": None}
    rank = UNKNOWN if snapped is None else min(axes, 1)
    links = set(branch.links)
    coefficients = tuple(factor if links & set(t.path) else np.array(1.0) for t in terms.paths)
    return Explanation(where, _sentence(labels, text), tuple(said), coefficients, left, rank)


def _of_missing(terms: Terms, branch: Branch) -> Iterator[str]:
    """Say why nothing comes along a branch: a constant on it, or a sum that was overwritten."""
    inside = [link.input for link in branch.links[:-1]]
    statistics = [t for t in inside if t.name and t.op in SUMS]
    if inside:
        yield f"{title((statistics or inside)[0])} taken for a constant"
    end = branch.links[-1].input
    if len(terms.back.ways[end]) > 1:
        yield f"= in place of += where gradients meet, at {title(end)}"


def _labels(terms: Terms, branch: Branch) -> list[str]:
    """Name the paths that a branch is part of: all of them are ``everything``.

    Where paths cannot be told apart by name, name the edges.
    """
    links = set(branch.links)
    labels = [t.label for t in terms.paths]
    if len(set(labels)) == len(labels) > 0:
        found = [t.label for t in terms.paths if links & set(t.path)]
        return ["everything"] if len(found) == len(labels) else found
    if (np.abs(branch.value - terms.total) <= terms.tolerance).all():
        return ["everything"]
    ends = [branch.links[0].consumer, *(link.input for link in branch.links)]
    return [" → ".join(title(t) for t in ends)]


def _sentence(labels: Sequence[str], factor: str) -> str:
    if list(labels) == ["everything"]:
        return f"The whole gradient {counting(factor, whole=True)}."
    names = [_called(label) for label in labels]
    text = " and ".join(names)
    return f"{text[0].upper()}{text[1:]} {counting(factor, several=len(names) > 1)}."


def _called(label: str) -> str:
    if label == "direct":
        return "the direct path"
    return f"what flows along {label}" if " → " in label else f"the path through {label}"


# A rule that is another one ----------------------------------------------------------------------


def _of_rules(terms: Terms, off: Array) -> Iterator[Explanation]:
    links = terms.links if len(terms.links) <= EDGES else []
    stages = [t for t in engine.toposort(terms.output) if t.name][:STAGES]
    for link in links:
        call, right = link.consumer, terms.flows[link]
        g = terms.back.cotangents[call]
        for fault in (*faults(link, among=stages), *lookalikes(link)):
            if fault.operand is None or call.op is None:
                continue
            with np.errstate(all="ignore"):
                flow = np.asarray(fault.rule(g, call.data, *call.values, **call.params))
            if not np.isfinite(flow).all():
                continue
            flow = np.asarray(kernels.sum_to(flow, shape=right.shape))
            for change in (terms.pull(link, flow - right), terms.pull_by_paths(link, flow - right)):
                if change.any() and fits(off - change, terms, np.abs(change)):
                    break
            else:
                continue
            used, meant = fault.operand
            effect = f"operand: {used} in place of {meant}"
            if used == "1" and fault.text.endswith("left out"):
                effect = f"{title(link.input)} × 1/{meant}"
            cause = f"{fault.text} on the way from {title(call)} to {title(link.input)}"
            said = f"d {title(link.input)} is computed with a wrong operand."
            yield Explanation(effect, said, (cause,), (), off - change, OPERAND)
        if summed(link) > 1:
            yield from _not_summed(terms, link, g, off)


def _not_summed(terms: Terms, link: Link, g: Array, off: Array) -> Iterator[Explanation]:
    """Explain it by a sum over what was broadcast that was not taken: broadcasting hides it.

    What should have been summed goes on row by row, each row for itself.
    """
    call, x = link.consumer, link.input
    rule = rule_of(call, link.position)
    assert rule is not None
    terms_of_sum = np.asarray(rule(g, call.data, *call.values, **call.params))
    if terms_of_sum.shape != terms.x.shape or x is terms.x:
        return
    each = terms.pull(link, np.ones(x.shape))
    change = each * terms_of_sum - terms.pull(link, terms.flows[link])
    if fits(off - change, terms, np.abs(change)) and change.any():
        text = f"d {title(x)} is not summed over what {title(x)} was broadcast to."
        yield Explanation(f"sum lost: {title(x)}", text, (), (), off - change, OPERAND)


def _of_variants(terms: Terms, found: Array) -> Iterator[Explanation]:
    """Explain it as the right gradient of a function that differs in one stage, or transposed."""
    square = found.ndim == 2 and found.T.shape == found.shape
    if square and fits(found.T - terms.total, terms, np.abs(found)):
        name = f"d {terms.x.name}"
        text = f"{name} is transposed; the shape does not tell, since it is square."
        yield Explanation(f"operand: {name}.T in place of {name}", text, (), (), found * 0, 2)
    for variant in variants(terms.output) if len(terms.links) <= EDGES else ():
        other = gradient(terms.output, terms.x, terms.seed, variant)
        if np.isfinite(other).all() and fits(found - other, terms, np.abs(other)):
            yield Explanation(variant.effect, variant.text, (), (), found - other, 4)


# Paths that count differently --------------------------------------------------------------------


def _of_paths(terms: Terms, off: Array) -> Iterator[Explanation]:
    """Write the gradient as a combination of the paths' contributions."""
    for axes in channels(terms) if len(terms.paths) > 1 else ():
        solved = solve(terms, off, axes)
        if solved is None:
            continue
        factors, looses = solved
        left = off - sum((f - 1) * t.value for f, t in zip(factors, terms.paths, strict=True))
        size = sum(
            np.abs(f - 1) * np.abs(t.value) for f, t in zip(factors, terms.paths, strict=True)
        )
        if not fits(left, terms, size):
            continue
        known = [
            "1"
            if (np.abs(f - 1) <= loose).all()
            else snap(f, loose, counts(terms), values(terms, f.shape))
            for f, loose in zip(factors, looses, strict=True)
        ]
        texts = [k or _number(f) for k, f in zip(known, factors, strict=True)]
        labels = [t.label for t in terms.paths]
        wrong = [(label, text) for label, text in zip(labels, texts, strict=True) if text != "1"]
        if None in known or not wrong or len(set(labels)) < len(labels):
            continue  # with enough numbers of any size, anything can be written so
        if len(wrong) == len(texts) and len(set(texts)) == 1:
            wrong = [("everything", texts[0])]
        effect = " and ".join(f"{label} × {text}" for label, text in wrong)
        text = " ".join(_sentence([label], text) for label, text in wrong)
        gone = [label for label, text in wrong if text == "0" and label != "direct"]
        causes_ = [f"{' and '.join(gone)} taken for constants"] if len(gone) > 1 else []
        yield Explanation(effect, text, tuple(causes_), tuple(factors), left, 3)
        return


def coefficients(
    terms: Terms, off: Array, explanations: Sequence[Explanation]
) -> list[tuple[Array | None, str]]:
    """Say how each path counts, by the first explanation, or else as far as it can be told."""
    best: Sequence[Array] = explanations[0].coefficients if explanations else ()
    if not best:
        solved = solve(terms, off, ())
        best = solved[0] if solved else ()
    if not best:
        return [(None, "cannot be told") for _ in terms.paths]
    return [(factor, _meaning(terms, factor)) for factor in best]


def _meaning(terms: Terms, factor: Array) -> str:
    near = 1e-4 * np.abs(factor)
    if (np.abs(factor - 1) <= near).all():
        return "1"
    return snap(factor, near, counts(terms), values(terms, factor.shape)) or _number(factor)


def _number(factor: Array) -> str:
    flat = np.asarray(factor).ravel()
    if flat.size == 1 or np.ptp(flat) <= 1e-3 * np.abs(flat).max():
        return f"{flat[0]:.4g}"
    return f"[{', '.join(f'{f:.3g}' for f in flat[:3])}{', …' * (flat.size > 3)}]"


# What has nothing to do with terms ---------------------------------------------------------------


def of_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> Explanation:
    """Explain another shape."""
    text = "A gradient has the shape of its array; broadcasting hides where it does not."
    squeezed = tuple(n for n in found if n != 1) == tuple(n for n in wanted if n != 1)
    cause = "a kept axis of length 1, or a lost one (keepdims)" if squeezed else ""
    if not squeezed and len(found) > len(wanted):
        cause = "the sum over what was broadcast left out"
    if not squeezed and found == wanted[::-1]:
        cause = "transposed"
    return Explanation("shape", text, (cause,) * bool(cause))


def of_dtype(found: Any, wanted: Any) -> Explanation:
    """Explain another dtype."""
    cause = (
        f"a {found} number or array that {wanted} was promoted to"
        if found.itemsize > wanted.itemsize
        else ""
    )
    return Explanation("dtype", "A gradient has the dtype of its array.", (cause,) * bool(cause))


def remarks(terms: Terms, off: Array, explanations: Sequence[Explanation]) -> Iterator[str]:
    """Say what could not be told, and where what nothing explains lies."""
    if len(terms.links) > EDGES:
        yield (
            f"There are {len(terms.links)} edges on the way to {terms.x.name}, more than {EDGES}, "
            "so that single faults were not looked for: diagnose a part of the function."
        )
    elif not terms.paths:
        yield f"There are more than {MOST} paths to {terms.x.name}: edges were tried one by one."
    if not explanations:
        yield _located(terms, off)
    elif explanations[0].rank >= UNKNOWN and terms.paths and solve(terms, off, ()) is None:
        yield (
            "At this size the paths' contributions depend on one another, so that they cannot all "
            "be told apart: give a larger batch."
        )


def _located(terms: Terms, residual: Array) -> str:
    """Say where what nothing explains lies."""
    wrong = np.abs(residual) > terms.tolerance
    share = f"{int(wrong.sum())} of {wrong.size} entries are wrong"
    if residual.ndim > 1:
        lines = [np.unique(np.nonzero(wrong)[a]) for a in range(residual.ndim)]
        few = [
            f"along axis {a} only at {', '.join(map(str, at[:4]))}"
            for a, at in enumerate(lines)
            if len(at) <= min(4, residual.shape[a] // 2)
        ]
        share += f" ({'; '.join(few)})" * bool(few)
    return (
        f"No single fault, and no combination of paths, explains it: {share}. Give the staged "
        "gradients to compare, which finds the stage."
    )
