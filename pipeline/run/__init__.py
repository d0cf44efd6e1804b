"""A pipeline made ready, run, verified; conversions and lazy arrays: what the verbs do."""
