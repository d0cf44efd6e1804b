"""Zarr: metadata read with care, chunks looked at before they are decoded, the store that a run writes."""
