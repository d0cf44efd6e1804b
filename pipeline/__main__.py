"""`python -m pipeline` is `rasterpipe`."""

from pipeline.cli import main

main(prog_name="rasterpipe")
