"""rasterpipe: a chunked, out-of-core processing pipeline for large multi-band rasters."""

__version__ = "0.1.0"
