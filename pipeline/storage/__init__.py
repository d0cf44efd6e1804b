"""Rasters as they lie: Zarr stores, TIFFs, arrays of other libraries; on disks and in object stores."""
