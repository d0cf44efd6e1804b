"""A map of rasters in the browser: a server on this machine alone, and the page that it serves."""
