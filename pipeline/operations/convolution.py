"""What convolve and gaussian share: boundary, invalid pixels, and the kernel that sums weighted neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import StrictBool, model_validator

from pipeline.kernels import extreme
from pipeline.kernels.convolution import Weights, correlate, scratch_bytes
from pipeline.kernels.frame import Frame
from pipeline.model.raster import SAME, Number, RasterSpec, largest
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Boundary, Edge, Specs
from pipeline.operations.checks import check_cval, check_finite, check_occurs
from pipeline.operations.exact import require_exact
from pipeline.operations.traits import HasUnits


class Convolution(HasUnits):
    """Base of the operations that sum weighted neighbours; subclasses say which weights."""

    boundary: Boundary = "reflect"
    """What lies beyond the raster's edge: scipy.ndimage's modes, or shrink (invalid pixels)."""
    cval: Number | None = None
    """Value of the pixels beyond the edge, for boundary: constant."""
    normalize: StrictBool = False
    """Divide by the sum of the weights of the valid pixels, and so skip invalid ones; an invalid centre stays so."""

    @model_validator(mode="after")
    def _check_cval(self) -> Convolution:
        check_cval("boundary", self.boundary, self.cval)
        check_finite(self.cval, "`boundary: shrink` has invalid pixels")
        return self

    def weights(self, dtype: np.dtype) -> Weights:
        """Return what pixels of this dtype are correlated with."""
        raise NotImplementedError(f"{type(self).__name__}.weights")

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": self.weights(self.working_dtype(specs["input"].dtype)).halo}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("invalid" if self.boundary == "shrink" else self.boundary, self.cval or 0)}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        require_exact(self, source)
        dtype = self.working_dtype(source.dtype)
        check_occurs(self.cval, dtype)
        can_be_invalid = source.can_be_invalid or (self.boundary == "shrink" and bool(self.halo(specs)["input"]))
        return {"value": replace(source, dtype=dtype, nodata=float("nan") if can_be_invalid else None)}

    def units(self) -> dict[str, str]:
        return {"value": SAME} if self.normalize else {}

    def limits(self, specs: Specs) -> dict[str, float]:
        most = max(largest(specs["input"].dtype), abs(self.cval or 0))
        return {"value": most * (1 if self.normalize else self.weights(np.dtype(np.float64)).size)}

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        source = specs["input"]
        lanes = source.num_bands if source.dims[-1] == "band" else 1
        dtype = self.working_dtype(source.dtype)
        weights = self.weights(dtype)
        return scratch_bytes(shape, weights, lanes) + extreme.scratch_bytes(dtype, self.halo(specs)["input"], lanes, 1)

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source, target = blocks["input"], out["value"]
        frame = Frame(region, source.origin, target.origin, source.lanes)
        weights = self.weights(source.values.dtype)
        correlate(source.planes(), weights, target.planes(), frame, self.normalize)
