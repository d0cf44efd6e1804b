"""TIFF: directories, segments, codecs, stacks; reading in blocks, writing in one pass."""
