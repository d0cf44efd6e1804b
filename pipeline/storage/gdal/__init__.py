"""Files that GDAL knows, through rasterio's wheel: read as they are stored, and from the disk alone."""
