"""What a file says of its place and its bands besides pixels: CRS, transforms, GeoTIFF tags, CF."""
