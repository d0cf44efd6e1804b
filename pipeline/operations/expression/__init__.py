"""The language of `calc` and `mask`: grammar, names, programs of ufuncs."""
