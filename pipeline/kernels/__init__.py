"""Arrays in, arrays out: numba and numpy."""
