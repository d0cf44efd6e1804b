"""Runs on dask clusters: connecting, asking the workers, sending them blocks. The only modules that import distributed,
and they do so when a run needs it."""
