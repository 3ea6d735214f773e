"""Marking a backward pass with what it belongs to, and checking what is marked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..dispatch import plain
from ..errors import OperandError, ShapeError, describe
from ..graph.nullpaths import NullPath
from ..kernels import Array
from ..tensor import Tensor
from .diagnose import examined, recorded
from .laws import AXIS, LOSS, Row, laws
from .match import GradientMismatch, complaints_of_calls, cotangent_for, gradients_of
from .null import null_paths
from .reference import Reference

F = TypeVar("F", bound=Callable[..., Any])

MARKS = "__microbn_marks__"
KINDS = (*AXIS, LOSS)
OPTIONS = ("axis", "eps", "groups")  # of the laws
ZERO = "gives 0 everywhere"  # as a null path says it


@dataclass(frozen=True, eq=False)
class Marked:
    """What a backward pass belongs to: the composed function, and inputs to check it at.

    ``inputs`` are a tuple, or a function of a random generator that returns one. ``kind`` and
    ``options`` say of which normalisation it has to obey the laws.
    """

    composed: Callable[..., Any]
    inputs: tuple[Any, ...] | Callable[[np.random.Generator], Any]
    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def drawn(self, seed: int) -> tuple[Any, ...]:
        """Return the inputs; draw them with this seed if they can be drawn."""
        if not callable(self.inputs):
            return self.inputs
        found = self.inputs(np.random.default_rng(seed))
        if not isinstance(found, tuple | list) or not found:
            raise OperandError(
                f"it returned {describe(found)}; let it return a tuple "
                "with one array for each input: inputs=lambda rng: (rng.normal(size=3),)"
            )
        return tuple(found)


def backward_of(
    composed: Callable[..., Any],
    *given: Any,
    inputs: Callable[[np.random.Generator], Any] | Sequence[Any] | None = None,
    kind: str | None = None,
    **options: Any,
) -> Callable[[F], F]:
    """Mark the function that follows as the backward pass of ``composed``, for `microbn check`.

    It stays the very function that it was. It takes ``(dy, *inputs)`` and returns a tuple with the
    gradient of each input. The inputs to check it at are given one by one, or as ``inputs``, a
    function of a random generator that returns a tuple: then others are drawn for every seed. With
    a ``kind``, such as ``"batch_norm"``, it has to obey the `laws` too, whose ``axis``, ``eps`` and
    ``groups`` are the ``options``. A function may be marked several times, each above the other.

    Raises an OperandError (a TypeError) for what is no function and for inputs that are missing or
    given twice, a ShapeError (a ValueError) for an unknown kind or option.

    >>> import numpy as np
    >>> def forward(x, w):
    ...     return np.tanh(x @ w)
    >>> @backward_of(forward, inputs=lambda rng: (rng.normal(size=(5, 3)), rng.normal(size=(3, 2))))
    ... def backward(dy, x, w):
    ...     dz = dy * (1 - np.tanh(x @ w) ** 2)
    ...     return dz @ w.T, x.T @ dz
    >>> [mark.composed.__name__ for mark in marks(backward)]
    ['forward']
    """
    _check_mark(composed, given, inputs, kind, options)
    args = inputs if callable(inputs) else tuple(given if inputs is None else inputs)
    mark = Marked(composed, args, kind, options)

    def marked(function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise OperandError(
                f"backward_of marks a function, not {describe(function)}; put "
                "@mb.check.backward_of(forward, x) on the line above its def"
            )
        try:
            setattr(function, MARKS, (mark, *marks(function)))
        except AttributeError:
            raise OperandError(
                f"{describe(function)} cannot be marked; mark a function of your own that calls it"
            ) from None
        return function

    return marked


def _check_mark(
    composed: Any, given: Sequence[Any], inputs: Any, kind: Any, options: Mapping[str, Any]
) -> None:
    """Refuse what cannot be checked later."""
    sort: type[Exception] = OperandError
    if not callable(composed):
        why = "give the composed function first: backward_of(forward, x)"
    elif given and inputs is not None:
        why = "there are inputs one by one and as inputs=; give them one way"
    elif any(inspect.isroutine(a) for a in given):
        why = "a function that draws the inputs is given by name: inputs=lambda rng: (...)"
    elif inputs is not None and not callable(inputs) and not isinstance(inputs, tuple | list):
        why = f"inputs= takes a function of a random generator, or a tuple, not {describe(inputs)}"
    elif not given and not inputs:
        why = (
            "there are no inputs to check it at; give them after the function, "
            "backward_of(forward, x), or draw them, inputs=lambda rng: (rng.normal(size=3),)"
        )
    elif kind not in (None, *KINDS):
        sort, why = ShapeError, f"kind={kind!r} must be one of {', '.join(KINDS)}"
    elif unknown := [key for key in options if key not in OPTIONS]:
        sort, why = ShapeError, f"there is no option {unknown[0]}; known: {', '.join(OPTIONS)}"
    elif options and kind is None:
        sort, why = ShapeError, f"{next(iter(options))}= is for laws; give kind='batch_norm' too"
    else:
        return
    name = getattr(composed, "__name__", describe(composed))
    raise sort(f"backward_of({name}, ...): {why}")


def marks(function: Any) -> tuple[Marked, ...]:
    """Return the marks of a function, from the top one to the one next to it."""
    found = inspect.getattr_static(function, MARKS, ())
    return found if isinstance(found, tuple) else ()


def marked_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the marked functions by name, in order of definition, each once."""
    found = {id(value): (name, value) for name, value in [*namespace.items()][::-1] if marks(value)}
    return dict(list(found.values())[::-1])


# What is found out about a mark ------------------------------------------------------------------


class Gradient(NamedTuple):
    """A gradient, and its worst error, compared to its largest entry; NaN if there is none."""

    name: str
    right: bool
    error: float = np.nan
    texts: tuple[str, ...] = ()  # what is wrong with it
    proves: bool = True  # False if the true gradient is nothing but rounding


class RaisedError(Exception):
    """What was raised, and by what: the backward pass, or what it is to be compared with."""

    def __init__(self, what: str, error: BaseException, *, backward: bool = False) -> None:
        super().__init__(what)
        self.what, self.error, self.backward = what, error, backward


@dataclass(frozen=True)
class Outcome:
    """What came out for one mark of a function.

    ``seed`` is the first with which it is wrong. ``texts`` are what is wrong with more than one
    gradient. ``nulls`` are the paths along which nothing flows.
    """

    name: str
    composed: str
    gradients: tuple[Gradient, ...] = ()
    texts: tuple[str, ...] = ()
    nulls: tuple[NullPath, ...] = ()
    seed: int | None = None
    raised: RaisedError | None = None
    kind: str | None = None

    @property
    def verdict(self) -> str:
        """In short: right, wrong, raised; or not checked, if there is nothing to compare with."""
        if self.raised:
            return "raised" if self.raised.backward else "not checked"
        right = not self.texts and all(gradient.right for gradient in self.gradients)
        return "right" if right else "wrong"


def checked(name: str, function: Callable[..., Any], mark: Marked, seeds: Sequence[int]) -> Outcome:
    """Check a backward pass at a random cotangent for each seed, up to the first that is wrong."""
    composed = getattr(mark.composed, "__name__", type(mark.composed).__name__)
    called = _guarded(function, name)
    found, nulls = list[tuple[Gradient, ...]](), tuple[NullPath, ...]()
    texts, seed = tuple[str, ...](), 0
    try:
        for seed in seeds:
            case = _Case(mark, composed, seed)
            nulls = nulls or case.nulls()
            found.append(tuple(case.gradients(called)))
            if not all(g.right for g in found[-1]):
                break
            if texts := tuple(_of_laws(called, mark, case.arrays, seed)):
                break
    except GradientMismatch as wrong:
        return Outcome(name, composed, (), (f"{str(wrong)[:1].upper()}{str(wrong)[1:]}.",), nulls)
    except RaisedError as raised:
        return Outcome(name, composed, seed=seed, raised=raised)
    rows = tuple(
        last._replace(error=_largest([g.error for g in every])) if last.right else last
        for last, *every in zip(found[-1], *found, strict=True)
    )
    return Outcome(name, composed, rows, texts, nulls, seed, kind=mark.kind)


def _largest(errors: Sequence[float]) -> float:
    return max((e for e in errors if not np.isnan(e)), default=np.nan)


def _guarded(function: Callable[..., Any], name: str) -> Callable[..., tuple[Any, ...]]:
    """Tell what the function raises from what microbn raises; copy what it returns."""

    def called(*args: Any) -> tuple[Any, ...]:
        try:
            found = function(*args)
            found = found if isinstance(found, tuple | list) else (found,)
            return tuple(g if g is None else np.array(plain(g)) for g in found)
        except (Exception, SystemExit) as error:
            raise RaisedError(name, error, backward=True) from None

    return called


class _Case:
    """The inputs for one seed, what is computed from them, and a random cotangent."""

    def __init__(self, mark: Marked, composed: str, seed: int) -> None:
        what = "The function that draws the inputs"
        try:
            inputs = mark.drawn(seed)
            what = "The composed function" if composed == "<lambda>" else composed
            self.output, self.leaves = recorded(mark.composed, inputs)
            if not self.output.requires_grad:
                raise OperandError("what it returns depends on none of its floating inputs")
        except Exception as error:
            raise RaisedError(what, error) from None
        self.dy = cotangent_for(self.output, None, seed)
        self.reference = Reference(self.output, self.dy)
        self.arrays = [np.array(a.data) if isinstance(a, Tensor) else a for a in self.leaves]

    def nulls(self) -> tuple[NullPath, ...]:
        """Return the paths along which nothing flows, each text once.

        Not those where a rule gives 0, as a ReLU that is off: with other inputs it may not.
        """
        found = {null.text: null for null in null_paths(self.output)}
        return tuple(null for null in found.values() if not null.reason.endswith(ZERO))

    def gradients(self, called: Callable[..., Any]) -> Iterator[Gradient]:
        """Yield what came out for each input that is floating."""
        found = gradients_of(called, self.dy, self.arrays)
        calls = complaints_of_calls(
            called, self.dy, self.arrays, found, self.reference, self.leaves
        )
        for x, g, of_calls in zip(self.leaves, found, calls, strict=True):
            if not isinstance(x, Tensor):
                continue
            texts = [of_calls] if of_calls else [*self._complaints(x, g)]
            yield Gradient(
                f"d {x.name}", not texts, self._error(x, g), tuple(texts), self._proves(x)
            )

    def _complaints(self, x: Tensor, found: Any) -> Iterator[str]:
        """Yield what is wrong with a gradient, paragraph by paragraph."""
        diagnosis = examined(self.reference, x, found)
        yield from () if diagnosis.ok else diagnosis.paragraphs()

    def _error(self, x: Tensor, found: Array | None) -> float:
        """Return the worst error compared to the largest entry, NaN if that means nothing."""
        true = self.reference.gradients.get(x)
        if found is None or true is None or found.shape != x.shape or not self._proves(x):
            return np.nan
        off = np.abs(found - true)
        return float(np.max(off) / np.max(np.abs(true))) if np.isfinite(off).all() else np.inf

    def _proves(self, x: Tensor) -> bool:
        """Whether the true gradient is more than rounding."""
        return x not in self.reference.gradients or not self.reference.is_rounding(x)


def _of_laws(
    called: Callable[..., Any], mark: Marked, arrays: Sequence[Any], seed: int
) -> Iterator[str]:
    """Say which laws are broken, if any."""
    if mark.kind is None:
        return
    try:
        found = laws(
            lambda *args: tuple(g for g in called(*args) if g is not None),
            *arrays,
            kind=mark.kind,
            seed=seed,
            **mark.options,
        )
    except (OperandError, ShapeError) as error:
        raise RaisedError(f"The laws of {mark.kind}", error) from None
    broken = [_law(row) for row in found.rows if not row.holds]
    if broken:
        yield (
            f"{'Laws' if len(broken) > 1 else 'A law'} of {mark.kind} broken: {'; '.join(broken)}. "
            "The gradients are those of the composed function: it is something else, or the mark "
            "lacks its axis=, eps= or groups=."
        )


def _law(row: Row) -> str:
    by = f", off by {row.deviation:.2g}" * (not np.isnan(row.deviation))
    return row.law + f" (at {row.where}{by})" * bool(row.where)
