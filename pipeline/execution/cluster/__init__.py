"""The workers of a dask cluster: connected to, asked, sent passes and blocks."""
