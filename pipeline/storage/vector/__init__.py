"""Polygons of GeoPackages and their like as rasters of whole numbers."""
