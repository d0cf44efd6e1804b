"""Convolution with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import StrictBool, field_validator, model_validator

from pipeline.kernels.convolution import Weights, prepare
from pipeline.model.errors import PipelineError
from pipeline.operations.convolution import Convolution
from pipeline.operations.fields import Matrix, MatrixOrPath
from pipeline.operations.registry import register
from pipeline.operations.traits import ReadsMatrices


@register
class Convolve(ReadsMatrices, Convolution):
    """Convolution with a kernel of odd sides: the sum of the neighbours, each times its weight.

    A pixel is invalid where an invalid one (nodata, NaN or inf) lies under a weight that is not 0; `normalize` skips
    it. A kernel that is a product of a column and a row costs the sum of its sides instead of their product.
    Reference: scipy.ndimage.convolve (with `correlate`: scipy.ndimage.correlate) in float64.
    """

    example: ClassVar[str] = "{name: edges, op: convolve, input: image, kernel: [[0, 1, 0], [1, -4, 1], [0, 1, 0]]}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "working dtype (float32 for up to 16 bits and float32)"}
    matrices: ClassVar[tuple[str, ...]] = ("kernel",)

    version: ClassVar[int] = 2

    op: Literal["convolve"]
    kernel: MatrixOrPath
    """Weights, one row a line: a matrix of odd sides, or a .npy, .csv or .txt file that holds one."""
    correlate: StrictBool = False
    """Correlate: do not flip the kernel, so that its upper left weight is that of the upper left neighbour."""

    @field_validator("kernel")
    @classmethod
    def _check_kernel(cls, kernel: Matrix | str) -> Matrix | str:
        if isinstance(kernel, str):
            return kernel
        for side, what in ((len(kernel), "row"), (len(kernel[0]), "column")):
            if side % 2 == 0:
                size = f"{len(kernel)} x {len(kernel[0])}"
                raise ValueError(f"must have odd sides, got {size}; pad it with a {what} of zeros on the side you mean")
        if not any(weight for row in kernel for weight in row):
            raise ValueError("must have a weight that is not 0, got zeros only")
        return kernel

    @model_validator(mode="after")
    def _check_sum(self) -> Convolve:
        if self.normalize and not isinstance(self.kernel, str):
            weights = np.array(self.kernel)
            if weights.min() < 0 < weights.max():
                raise PipelineError(
                    f"weights of both signs ({weights.min():g} to {weights.max():g}) make no mean: those of the valid "
                    "pixels may sum to nearly 0; leave `normalize` out",
                    ("normalize",),
                )
        return self

    def weights(self, dtype: np.dtype) -> Weights:
        kernel = np.array(self.kernel, np.float64)
        return prepare(kernel if self.correlate else kernel[::-1, ::-1], dtype)
