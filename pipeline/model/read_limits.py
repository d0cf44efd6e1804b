"""What reading an input may take: bounds against files that say more of themselves than is true."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.model.errors import InputError
from pipeline.model.value import Frozen, parse_bytes

BAND_LIMIT = 2**16
"""Bands of a raster: what samples of a TIFF can number. Each has a name, so a million million of them fill memory."""
SLACK_BYTES = 2**16
"""What encoding may add to data that do not compress, beside doubling them."""


Size = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]


class ReadLimits(Frozen):
    """What reading an input may take at most; raise a limit for a file that is to be trusted."""

    # Checked against what the metadata say, before anything is allocated; the number of pixels has no limit.
    tile_bytes: Size = 256 * 2**20
    """What a chunk, strip or tile that can only be decoded whole decodes to."""
    allocation_bytes: Size = 512 * 2**20
    """What is read beside the pixels: coordinates, tables of tiles, tags."""
    # Constant pixels reach 32,000 in zstd, a million in LERC.
    decompression_ratio: float = Field(default=1_000_000, ge=1, allow_inf_nan=False)
    """Decoded to stored bytes of a chunk, strip or tile."""

    def check_tile(self, what: str, num_bytes: int, remedy: str) -> None:
        """Raise InputError where tiles, decoded, are too large; `what` names them."""
        if num_bytes > self.tile_bytes:
            raise InputError(
                f"{what} decode to {num_bytes:,} bytes each, the limit is {self.tile_bytes:,}; "
                f"raise run.limits.tile_bytes, or {remedy}"
            )

    def check_allocation(self, what: str, num_bytes: int) -> None:
        """Raise InputError where something beside the pixels would take too much memory."""
        if num_bytes > self.allocation_bytes:
            raise InputError(
                f"{what}: {num_bytes:,} bytes in memory, the limit is {self.allocation_bytes:,}; "
                "raise run.limits.allocation_bytes if the file is to be trusted"
            )

    def check_ratio(self, what: str, decoded_bytes: int, stored_bytes: int) -> None:
        """Raise InputError where few stored bytes claim to be many."""
        if decoded_bytes > self.decompression_ratio * max(1, stored_bytes):
            raise InputError(
                f"{what}: {stored_bytes:,} stored bytes claim to be {decoded_bytes:,}, "
                f"{decoded_bytes / max(1, stored_bytes):,.0f} times as many, the limit is "
                f"{self.decompression_ratio:,.0f}; raise run.limits.decompression_ratio if the file is to be trusted"
            )


TRUSTED = ReadLimits.model_construct(tile_bytes=2**62, allocation_bytes=2**62, decompression_ratio=math.inf)
"""For what the run itself has written."""


def allowed_bytes(decoded_bytes: int) -> int:
    """Return what data of a known size may take while encoded, and between two codecs."""
    return 2 * decoded_bytes + SLACK_BYTES


def check_bands(path: str, count: int) -> None:
    """Raise InputError for more bands than can be named."""
    if count > BAND_LIMIT:
        raise InputError(f"{path}: has {count:,} bands, at most {BAND_LIMIT:,} are read; split it")
