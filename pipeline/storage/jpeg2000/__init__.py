"""JPEG 2000 without GDAL: files of tiles, each decoded by itself."""
