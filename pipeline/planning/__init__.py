"""From steps, specs and limits to a plan, frozen before anything runs: arithmetic, no pixels, no files."""
