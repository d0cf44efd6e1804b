"""Pipeline files to begin with: templates, fitted to a raster."""
