"""Second derivatives by central differences: dyy, dxy, dxx, and invariants of the Hessian matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pipeline.operations.difference import Difference, DifferenceEdge
from pipeline.operations.registry import register

Entry = Literal["dyy", "dxy", "dxx", "laplacian", "determinant", "eigen_large", "eigen_small"]


@register
class Hessian(Difference):
    """Second derivatives of each band by central differences, and invariants of the Hessian matrix.

    dyy and dxx are the stencils of three pixels, dxy is the product of the two first differences. Polynomials of
    degree 2 come out exact, at the edge too. A result is invalid where its support (its stencil and the pixel itself)
    holds an invalid pixel or an infinity. Reference: slices in float64, numpy.linalg.eigvalsh.
    """

    example: ClassVar[str] = "{name: bend, op: hessian, input: image, spacing: [10, 10], outputs: [dyy, dxy, dxx]}"
    outputs_text: ClassVar[Mapping[str, str]] = {
        "dyy": "(down - 2 centre + up) / spacing^2; working dtype",
        "dxy": "difference of the four corners / (4 spacing_y spacing_x); working dtype",
        "dxx": "(right - 2 centre + left) / spacing^2; working dtype",
        "laplacian": "dyy + dxx; working dtype",
        "determinant": "dyy dxx - dxy^2; working dtype",
        "eigen_large": "the larger eigenvalue of [[dyy, dxy], [dxy, dxx]]; working dtype",
        "eigen_small": "the smaller eigenvalue; working dtype",
    }

    version: ClassVar[int] = 3

    op: Literal["hessian"]
    outputs: tuple[Entry, ...] = ("dyy", "dxy", "dxx")
    """What to compute; each is an output."""
    edge: DifferenceEdge = "one_sided_2"
    """At the raster's edge: one_sided_2 (the parabola through the outermost 3 pixels goes on), one_sided (the line
    through the outermost 2: dyy and dxx are 0 at the edges they cross), zero (a rim of zeros), shrink (what would need
    pixels beyond the edge is invalid), or pixels beyond the edge as in scipy.ndimage. With fewer pixels along an axis
    than that: the line, or the constant."""
