"""What other libraries log and raise, in words of ours."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from pipeline.model.raster import printable

WARNING_LIMIT = 20


@contextlib.contextmanager
def logged(messages: list[str], library: str) -> Iterator[None]:
    """Collect what a library's logger warns of in this thread instead of letting it reach stderr."""
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        text = record.getMessage()
        if record.levelno >= logging.WARNING and "GDAL_NODATA" not in text and len(messages) < WARNING_LIMIT:
            messages.append(f"{library.partition('.')[0]}: {printable(text[:300])}")
        return False

    logger = logging.getLogger(library)
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)


def reason(error: BaseException) -> str:
    """Return an error of another library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
