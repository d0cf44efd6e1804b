"""Rasters as pictures: which pixels are drawn, in which colours, with which legend; files and tiles alike."""
