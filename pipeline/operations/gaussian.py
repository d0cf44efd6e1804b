"""Gaussian smoothing and its derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, StrictInt, model_validator

from pipeline.kernels.convolution import Weights, gaussian_radius, gaussian_weights, separable
from pipeline.model.errors import PipelineError
from pipeline.model.raster import SAME
from pipeline.operations.base import Specs
from pipeline.operations.convolution import Convolution
from pipeline.operations.fields import to_pair
from pipeline.operations.registry import register

Sigma = Annotated[float, Field(ge=0, le=10_000)]
Order = Annotated[StrictInt, Field(ge=0, le=3)]
SigmaPair = Annotated[tuple[Sigma, Sigma], BeforeValidator(to_pair, json_schema_input_type=Sigma | tuple[Sigma, Sigma])]
OrderPair = Annotated[tuple[Order, Order], BeforeValidator(to_pair, json_schema_input_type=Order | tuple[Order, Order])]


@register
class Gaussian(Convolution):
    """Gaussian smoothing, or derivatives of the smoothed raster.

    A pixel is invalid where an invalid one (nodata, NaN or inf) lies within reach of the weights, also where a weight
    of a derivative is 0; `normalize` skips it. Reference: scipy.ndimage.gaussian_filter in float64.
    """

    example: ClassVar[str] = "{name: soft, op: gaussian, input: image, sigma: 2}"
    outputs_text: ClassVar[Mapping[str, str]] = {"value": "working dtype (float32 for up to 16 bits and float32)"}

    version: ClassVar[int] = 2

    op: Literal["gaussian"]
    sigma: SigmaPair
    """Standard deviation in pixels: one number or [y, x]; 0 leaves an axis alone."""
    truncate: Annotated[float, Field(gt=0, le=100)] = 4.0
    """Where the weights end, in standard deviations: int(truncate * sigma + 0.5) pixels on each side."""
    order: OrderPair = (0, 0)
    """Derivative per axis, 0 to 3: one number or [y, x]; 0 smooths. Per pixel, y downwards."""

    @model_validator(mode="after")
    def _check_order(self) -> Gaussian:
        for axis, sigma, order in zip("yx", self.sigma, self.order, strict=True):
            if order and not gaussian_radius(sigma, self.truncate):
                raise PipelineError(
                    f"a derivative along {axis} needs neighbours, and sigma {sigma:g} has none within "
                    f"truncate {self.truncate:g}; raise sigma, or set its order to 0",
                    ("sigma",),
                )
        if self.normalize and any(self.order):
            raise PipelineError("is for smoothing; the weights of a derivative sum to 0", ("normalize",))
        return self

    def units(self) -> dict[str, str]:
        return {} if any(self.order) else {"value": SAME}

    def notes(self, specs: Specs) -> Iterator[str]:
        if any(self.order) and specs["input"].transform is not None:
            yield "the pixels of the raster have a size; sigma counts pixels, and the derivatives are per pixel"

    def weights(self, dtype: np.dtype) -> Weights:
        pairs = zip(self.sigma, self.order, strict=True)
        down, across = (gaussian_weights(sigma, self.truncate, order) for sigma, order in pairs)
        return separable(down, across, zeros=True)  # scipy skips zeros in convolve alone
