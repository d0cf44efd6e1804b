"""Operations that break the contract, each in one way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PrivateAttr

from pipeline.model.region import Halo, Region
from pipeline.operations.base import Specs
from rasterpipe_example.contrast import Contrast


class RunningSum(Contrast):
    """Sums along the rows of a block, whose bits depend on where it begins."""

    example: ClassVar[str] = "{name: sums, op: running_sum, input: image}"
    op: Literal["running_sum"]

    def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
        axis = blocks["input"].dims.index("x")
        with np.errstate(all="ignore"):
            out["value"].part(region)[...] = np.cumsum(blocks["input"].part(region) * 0.1, axis=axis)


class MoreScratch(Contrast):
    """Allocates more than it says."""

    example: ClassVar[str] = "{name: more, op: more_scratch, input: image}"
    op: Literal["more_scratch"]

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        return 0

    def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
        with np.errstate(all="ignore"):
            spare = np.stack([blocks["input"].part(region) * 0.5] * 4)
            out["value"].part(region)[...] = spare[0] - spare[3]


class OtherDtype(Contrast):
    """Hands over another dtype than it declares."""

    example: ClassVar[str] = "{name: other, op: other_dtype, input: image}"
    op: Literal["other_dtype"]

    def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
        super().apply(blocks, tables, out, region)
        out["value"].values = out["value"].values.astype(np.float16)


class HaloTooSmall(Contrast):
    """Reads a column that it did not ask for."""

    example: ClassVar[str] = "{name: small, op: halo_too_small, input: image}"
    op: Literal["halo_too_small"]

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo(left=1)}


class PadsWithin(Contrast):
    """Makes its own edge of each block."""

    example: ClassVar[str] = "{name: pads, op: pads_within, input: image}"
    op: Literal["pads_within"]

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {}

    def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
        source = blocks["input"]
        widths = [(1, 1) if dim == "x" else (0, 0) for dim in source.dims]
        padded = np.pad(source.part(region), widths, mode="edge")
        block = replace(source, values=padded, origin=(region.top, region.left - 1))
        super().apply({"input": block}, tables, out, region)


class HaloTooLarge(Contrast):
    """Asks for a column that it does not read."""

    example: ClassVar[str] = "{name: large, op: halo_too_large, input: image}"
    op: Literal["halo_too_large"]

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": Halo(left=1, right=2)}


class ChangesInput(Contrast):
    """Computes in the block that it was handed."""

    example: ClassVar[str] = "{name: changes, op: changes_input, input: image}"
    op: Literal["changes_input"]

    def apply(self, blocks: Any, tables: Any, out: Any, region: Region) -> None:
        super().apply(blocks, tables, out, region)
        blocks["input"].part(region)[...] = 0


class NotPicklable(Contrast):
    """Holds what cannot go to a worker."""

    example: ClassVar[str] = "{name: local, op: not_picklable, input: image}"
    op: Literal["not_picklable"]
    _function: Callable[[Any], Any] = PrivateAttr(default_factory=lambda: lambda value: value)
