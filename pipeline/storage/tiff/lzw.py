"""LZW of TIFF, decoded by a kernel into buffers that each thread keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tifffile import TIFF, TiffPage

from pipeline.kernels import lzw
from pipeline.storage.thread_buffers import ThreadBuffers
from pipeline.storage.tiff.layout import Layout

_BUFFERS = ThreadBuffers()
"""Of all files: a thread decodes one at a time."""


def compile_kernel() -> None:
    """Decode nothing, so that the kernel is compiled."""
    lzw.decode(np.zeros(lzw.SLACK_BYTES, np.uint8), np.zeros(lzw.SLACK_BYTES, np.uint8))


class LzwDecoder:
    """Decodes whole samples; what the kernel finds odd is decoded by tifffile, which knows more of it or says why not.

    A segment holds until the thread decodes the next one, of whatever file.
    """

    compile = staticmethod(compile_kernel)

    def __init__(self, page: TiffPage, layout: Layout, otherwise: Callable[..., np.ndarray]) -> None:
        self._layout, self._otherwise, self._rows = layout, otherwise, layout.rows_stored
        self._dtype = layout.dtype.newbyteorder("=")
        self._restore: Any = TIFF.UNPREDICTORS[page.predictor] if page.predictor != 1 else None

    @staticmethod
    def knows(page: TiffPage, layout: Layout) -> bool:
        """Return whether samples are whole, in an order of bytes and bits in which the predictor can be undone."""
        is_whole = layout.dtype.kind != "b" and page.bitspersample == layout.dtype.itemsize * 8
        is_plain = page.predictor in (1, 2) or (page.predictor == 3 and layout.dtype.isnative)
        return is_whole and is_plain and page.fillorder == 1 and not page.is_subsampled

    def __call__(self, data: bytes, index: int, tables: bytes | None) -> np.ndarray:
        layout, rows = self._layout, int(self._rows[index // self._layout.across])
        num_bytes = rows * layout.row_bytes
        source = _BUFFERS.take("source", len(data) + lzw.SLACK_BYTES)
        out = _BUFFERS.take("out", num_bytes + lzw.SLACK_BYTES)
        source[: len(data)] = np.frombuffer(data, np.uint8)
        if lzw.decode(source, out) != num_bytes:
            return self._otherwise(data, index, tables)
        segment = out[:num_bytes].view(layout.dtype).reshape(rows, layout.columns, layout.samples)
        if not layout.dtype.isnative:
            segment = segment.byteswap(inplace=True).view(self._dtype)
        return segment if self._restore is None else self._restore(segment, axis=-2, out=segment)
