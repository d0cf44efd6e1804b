"""The machinery of rounds, reports and processes; `rows` are measured by it, `studies` stand alone."""
