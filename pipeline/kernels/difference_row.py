"""Finite differences along one row: the loops of `kernels.difference`, each without a branch."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner

DEGREES = 57.29577951308232
"""180 / pi."""


@inner
def first_order(above: Any, level: Any, below: Any, stencil: Any, dy: Any, dx: Any) -> None:
    """Write dy and dx; the rows of input begin `side` elements left of the outputs and end as many right of them."""
    side, by_y, by_x = stencil.side, stencil.by_y, stencil.by_x
    upper, centre, lower, right = above[side:], level[side:], below[side:], level[2 * side :]
    times_y, times_x = 1.0 / by_y, 1.0 / by_x
    for c in range(dy.size):
        pixel = np.float64(centre[c])
        bad = pixel - pixel  # 0, or NaN where the pixel is NaN or inf
        y = np.float64(lower[c]) - np.float64(upper[c])
        x = np.float64(right[c]) - np.float64(level[c])
        y += (y - y) + bad
        x += (x - x) + bad
        # one multiplication in float64 is exact enough for float32; float64 takes the quotient, rounded once
        dy[c] = y * times_y if dy.itemsize == 4 else y / by_y
        dx[c] = x * times_x if dx.itemsize == 4 else x / by_x


@inner
def second_order(above: Any, level: Any, below: Any, stencil: Any, dyy: Any, dxy: Any, dxx: Any) -> None:
    """Write dyy, dxy and dxx; rows as for `first_order`."""
    side, by_yy, by_xy, by_xx = stencil.side, stencil.by_yy, stencil.by_xy, stencil.by_xx
    upper, centre, lower, right = above[side:], level[side:], below[side:], level[2 * side :]
    upper_right, lower_right = above[2 * side :], below[2 * side :]
    times_yy, times_xy, times_xx = 1.0 / by_yy, 1.0 / by_xy, 1.0 / by_xx
    for c in range(dyy.size):
        pixel = np.float64(centre[c])
        bad = pixel - pixel
        yy = (np.float64(lower[c]) - pixel) - (pixel - np.float64(upper[c]))
        xx = (np.float64(right[c]) - pixel) - (pixel - np.float64(level[c]))
        along_below = np.float64(lower_right[c]) - np.float64(below[c])
        along_above = np.float64(upper_right[c]) - np.float64(above[c])
        xy = along_below - along_above
        yy += yy - yy
        xx += xx - xx
        xy += (xy - xy) + bad
        dyy[c] = yy * times_yy if dyy.itemsize == 4 else yy / by_yy
        dxy[c] = xy * times_xy if dxy.itemsize == 4 else xy / by_xy
        dxx[c] = xx * times_xx if dxx.itemsize == 4 else xx / by_xx


@inner
def length_of(a: Any, b: Any) -> Any:
    """Return the length of a vector; squares neither overflow nor vanish. NaN is up to the caller."""
    longer, shorter = max(abs(a), abs(b)), min(abs(a), abs(b))
    ratio = shorter / (longer if longer > 0 else 1.0)
    return longer * np.sqrt(1.0 + ratio * ratio)


@inner
def magnitudes(dy: Any, dx: Any, out: Any) -> None:
    for c in range(out.size):
        y, x = np.float64(dy[c]), np.float64(dx[c])
        out[c] = length_of(y, x) + ((y - y) + (x - x))


@inner
def directions(dy: Any, dx: Any, out: Any) -> None:
    """Write atan2(dy, dx) in degrees, in (-180, 180]; 0 where both are 0."""
    for c in range(out.size):
        y, x = np.float64(dy[c]), np.float64(dx[c])
        angle = degrees_of(y, x) + ((y - y) + (x - x))
        rounded = out.dtype.type(angle)
        out[c] = -rounded if rounded == -180 else rounded


@inner
def degrees_of(y: Any, x: Any) -> Any:
    """Return the angle of a vector in degrees; NaN is up to the caller.

    In arithmetic alone, so that loops are vectorised and the bits are the same on every machine. The angle to the
    nearer axis is the arc tangent of a ratio up to 1; above 0.66 it is 45 degrees plus that of (r - 1) / (r + 1).
    Rational approximation: Cephes, atan.c (S. L. Moshier), relative error some 2e-16.
    """
    longer, shorter = max(abs(y), abs(x)), min(abs(y), abs(x))
    steep = shorter > 0.66 * longer
    numerator = shorter - longer if steep else shorter
    denominator = shorter + longer if steep else longer
    t = numerator / (denominator if denominator > 0 else 1.0)
    z = t * t
    p = (((-8.750608600031904122785e-1 * z - 1.615753718733365076637e1) * z - 7.500855792314704667340e1) * z) + (
        -1.228866684490136173410e2
    )
    p = p * z - 6.485021904942025371773e1
    q = ((z + 2.485846490142306297962e1) * z + 1.650270098316988542046e2) * z + 4.328810604912902668951e2
    q = (q * z + 4.853903996359136964868e2) * z + 1.945506571482613964425e2
    angle = (t + t * (z * p / q)) * DEGREES + (45.0 if steep else 0.0)
    angle = 90.0 - angle if abs(y) > abs(x) else angle
    angle = 180.0 - angle if x < 0 else angle
    return -angle if y < 0 else angle


@inner
def laplacians(dyy: Any, dxx: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = np.float64(dyy[c]) + np.float64(dxx[c])


@inner
def determinants(dyy: Any, dxy: Any, dxx: Any, out: Any) -> None:
    for c in range(out.size):
        xy = np.float64(dxy[c])
        out[c] = np.float64(dyy[c]) * np.float64(dxx[c]) - xy * xy


@inner
def eigenvalues(dyy: Any, dxy: Any, dxx: Any, large: Any, small: Any) -> None:
    """Write the larger and the smaller eigenvalue of [[dyy, dxy], [dxy, dxx]].

    The one of larger size is a sum without cancellation; the other is the determinant divided by it (LAPACK, dlae2).
    """
    for c in range(large.size):
        a, b, d = np.float64(dyy[c]), np.float64(dxy[c]), np.float64(dxx[c])
        total = a + d
        spread = length_of(a - d, b + b)
        far = 0.5 * (total - spread if total < 0 else total + spread)
        divisor = far if far != 0 else 1.0
        longer, shorter = (a, d) if abs(a) > abs(d) else (d, a)
        near = (longer / divisor) * shorter - (b / divisor) * b
        near = -far if total == 0 else near
        bad = (total - total) + (b - b) + (far - far)
        large[c] = max(far, near) + bad
        small[c] = min(far, near) + bad
