"""Gabor kernels, and how a bank of them is computed: sums of products of two vectors, shared between filters.

A Gabor kernel whose envelope is round is the real (or imaginary) part of a product of two complex vectors; cut into
the part that is even and the part that is odd from top to bottom, each part is one product of two real vectors. At
orientations t and 180 - t the parts are the same, but for a sign. Any other kernel is a sum of few such products,
found by adaptive cross approximation with full pivoting (Bebendorf 2000, "Approximation of boundary element
matrices"): the row and the column of the largest value, taken away, leave a remainder that falls fast.

    response[y, x] = sum over terms of sign * (down[y] applied down the columns, then across[x] along the rows)

The products are truncated where sum |k - k'| <= tolerance * sum |k|: 1e-7 for float32 results, and 8 eps for float64
ones, what rounding of the phase leaves in scikit-image's kernels too. Every step is plain elementwise arithmetic in
float64, so all processes find the same bits. A kernel for which the products would cost more is summed directly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.kernels.convolution import Weights, direct
from pipeline.kernels.gabor_vector import LEAST

LARGEST_GROUP = 4
"""Filters that are computed together at most: a response of each is held."""


@dataclass(frozen=True, slots=True)
class Group:
    """Filters of one size whose responses are computed together, in the order of `filters`.

    Either `direct` has the kernels of the one filter to be summed directly (two for a magnitude), or the rest says
    how the components of the filters (two each for magnitudes) are put together.
    """

    filters: tuple[int, ...]
    """Positions of the filters in the bank."""
    size: tuple[int, int]
    """Rows and columns of the kernels."""
    direct: tuple[Weights, ...] = ()
    down: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """(column factor, row of the kernel)."""
    across: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """(term, column of the kernel)."""
    columns: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """term -> its column factor."""
    signs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """(component, term): 1, -1, or 0 where a component does not have the term."""

    @property
    def reach(self) -> tuple[int, int]:
        return self.size[0] // 2, self.size[1] // 2


def bandwidth_sigma(bandwidth: float, frequency: float) -> float:
    """Return the standard deviation (pixels) of the envelope of a filter of `bandwidth` octaves.

    Examples
    --------
    >>> round(bandwidth_sigma(1, 0.1), 3)
    5.622
    """
    octaves: float = 2.0**bandwidth
    return 1.0 / np.pi * math.sqrt(math.log(2) / 2.0) * (octaves + 1) / (octaves - 1) / frequency


def kernel_reach(theta: float, sigma: tuple[float, float], n_stds: float) -> tuple[int, int]:
    """Return the rows and columns of a kernel on each side of its centre; see `gabor_kernel`."""
    along, across = sigma
    c, s = math.cos(theta), math.sin(theta)
    rows = math.ceil(max(abs(n_stds * across * c), abs(n_stds * along * s), 1))
    columns = math.ceil(max(abs(n_stds * along * c), abs(n_stds * across * s), 1))
    return rows, columns


def gabor_kernel(
    frequency: float, theta: float, sigma: tuple[float, float], n_stds: float = 3, offset: float = 0
) -> np.ndarray:
    """Return the complex Gabor kernel (rows, columns), both odd: scikit-image's ``gabor_kernel``.

    Parameters
    ----------
    frequency
        Cycles per pixel.
    theta, offset
        Orientation and phase in radians; at theta 0 the wave runs along the columns.
    sigma
        Standard deviations of the envelope along and across the wave, in pixels.
    n_stds
        The kernel is cut off at this many standard deviations.

    Examples
    --------
    >>> gabor_kernel(0.15, 0, (5, 5)).shape, gabor_kernel(0.15, 0, (5, 2)).shape
    ((31, 31), (13, 31))
    """
    rows, columns = kernel_reach(theta, sigma, n_stds)
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    c, s = math.cos(theta), math.sin(theta)
    along, across = x * c + y * s, -x * s + y * c
    exponent = -0.5 * (along**2 / sigma[0] ** 2 + across**2 / sigma[1] ** 2)
    kernel: np.ndarray = np.exp(exponent + 1j * (2 * np.pi * frequency * along + offset))
    return kernel * (1 / (2 * np.pi * sigma[0] * sigma[1]))


def factor_bank(bank: Sequence[tuple[np.ndarray, ...]], dtype: np.dtype, exact: bool) -> tuple[Group, ...]:
    """Return the groups in which a bank is computed; every filter is in one.

    Parameters
    ----------
    bank
        Filter -> its real kernels: one, or two of one size for a magnitude. They are those of a convolution.
    dtype
        Of the results: float32 or float64.
    exact
        Sum all filters directly.
    """
    groups: list[_Group] = []
    alone: list[Group] = []
    tolerance = 1e-7 if dtype == np.float32 else 8 * float(np.finfo(np.float64).eps)
    for position, kernels in enumerate(bank):
        flipped = tuple(kernel[::-1, ::-1] for kernel in kernels)
        parts = [] if exact else [_parts(kernel, tolerance) for kernel in flipped]
        rows, columns = kernels[0].shape
        if exact or min(rows, columns) < LEAST or _cost(parts) > rows * columns * len(kernels):
            alone.append(Group((position,), (rows, columns), tuple(direct(kernel, zeros=True) for kernel in flipped)))
            continue
        group = next((group for group in groups if group.shares((rows, columns), parts)), None)
        if group is None:
            group = _Group((rows, columns))
            groups.append(group)
        group.add(position, parts)
    return (*(group.freeze() for group in groups), *alone)


Term = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class _Part:
    """The even or the odd part of a kernel, and its terms (down, across)."""

    values: np.ndarray
    slack: float
    """Sum of absolute differences up to which another part counts as this one."""
    terms: tuple[Term, ...]
    mark: float

    def sign(self, other: _Part) -> int:
        """Return 1 or -1 if the other part is this one times it, else 0."""
        if self.values.shape != other.values.shape:
            return 0
        for sign in (1, -1):
            may_be = abs(self.mark - sign * other.mark) <= MARK_SLACK * self.slack
            if may_be and _distance(self.values, sign * other.values) <= self.slack:
                return sign
        return 0


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum())


MARK_SLACK = 1e6
"""Times what two arrays may differ by, their marks may: far more than rounding makes of sums of a million values."""


def _mark(values: np.ndarray) -> float:
    """Return a number that differs for two arrays by no more than the sum of their absolute differences."""
    return float(np.dot(np.cos(np.arange(values.size)), values.ravel()))


def _parts(kernel: np.ndarray, tolerance: float) -> list[_Part]:
    """Return the parts that are even and odd from top to bottom; each is left out if it is negligible."""
    size = float(np.abs(kernel).sum())
    both = ((kernel + kernel[::-1]) / 2, (kernel - kernel[::-1]) / 2)
    parts = [_cross_approximation(values, tolerance / 4 * size, min(tolerance / 4, 1e-13) * size) for values in both]
    return [part for part in parts if part.terms] or [replace(parts[0], terms=((both[0][:, 0], both[0][0]),))]


def _cross_approximation(values: np.ndarray, allowed: float, slack: float) -> _Part:
    """Return a part with the pairs (down, across) whose outer products sum to it, but for differences of `allowed`.

    The greatest value of each first vector is 1.
    """
    rest = values
    terms: list[Term] = []
    while float(np.abs(rest).sum()) > allowed and len(terms) < min(values.shape):
        row, column = np.unravel_index(np.abs(rest).argmax(), rest.shape)
        terms.append((rest[:, column] / rest[row, column], rest[row]))
        rest = rest - np.outer(*terms[-1])
    return _Part(values, slack, tuple(terms), _mark(values))


def _cost(parts: Sequence[Sequence[_Part]]) -> float:
    """Return about how many taps of a direct sum cost what the terms cost; a tap of these is some 0.6 of one."""
    return sum(0.6 * (down.size + across.size) + 4 for each in parts for part in each for down, across in part.terms)


class _Group:
    """Collects the filters of one group, and what they share."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.filters: list[int] = []
        self.parts: list[tuple[_Part, list[int]]] = []
        self.down: list[np.ndarray] = []
        self.marks: list[float] = []
        """Of the column factors."""
        self.terms: list[tuple[int, np.ndarray]] = []
        self.components: list[dict[int, int]] = []

    def shares(self, size: tuple[int, int], parts: Sequence[Sequence[_Part]]) -> bool:
        """Return whether another filter fits in and has a part or a column factor in common."""
        if size != self.size or len(self.filters) == LARGEST_GROUP:
            return False
        return any(
            any(known.sign(part) for known, _ in self.parts)
            or any(self._find_column(down) is not None for down, _ in part.terms)
            for each in parts
            for part in each
        )

    def add(self, position: int, parts: Sequence[Sequence[_Part]]) -> None:
        self.filters.append(position)
        for each in parts:
            component: dict[int, int] = {}
            for part in each:
                sign, terms = self._find(part)
                component.update(dict.fromkeys(terms, sign))
            self.components.append(component)

    def _find(self, part: _Part) -> tuple[int, list[int]]:
        """Return the terms of a part and their sign; they are added where no known part is equal."""
        for known, terms in self.parts:
            if sign := known.sign(part):
                return sign, terms
        terms = []
        for down, across in part.terms:
            column = self._find_column(down)
            if column is None:
                column = len(self.down)
                self.down.append(down)
                self.marks.append(_mark(down))
            terms.append(len(self.terms))
            self.terms.append((column, across))
        self.parts.append((part, terms))
        return 1, terms

    def _find_column(self, down: np.ndarray) -> int | None:
        mark, eps = _mark(down), float(np.finfo(np.float64).eps)
        for column, (known, other) in enumerate(zip(self.down, self.marks, strict=True)):
            may_be = abs(mark - other) <= MARK_SLACK * eps * known.size  # the greatest value is 1
            if may_be and _distance(known, down) <= 8 * eps * float(np.abs(known).sum()):
                return column
        return None

    def freeze(self) -> Group:
        signs = np.zeros((len(self.components), len(self.terms)))
        for row, component in zip(signs, self.components, strict=True):
            for term, sign in component.items():
                row[term] = sign
        return Group(
            filters=tuple(self.filters),
            size=self.size,
            down=np.stack(self.down),
            across=np.stack([across for _, across in self.terms]),
            columns=np.array([column for column, _ in self.terms]),
            signs=signs,
        )
