"""What the verbs of the API do: a pipeline made ready, planned, run, verified; conversions, lazy arrays, scenes."""
