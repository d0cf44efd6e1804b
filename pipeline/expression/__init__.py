"""The expressions of `calc` and `mask`: read (`grammar`), bound to rasters (`names`), made a program (`program`)."""
