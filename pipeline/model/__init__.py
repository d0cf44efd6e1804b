"""What everything speaks of: rasters, regions, tables, totals, errors. No files, no pixels."""
