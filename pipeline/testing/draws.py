"""How many examples the drawn tests try: one setting scales them all."""

import os

SHARE = float(os.environ.get("RASTERPIPE_DRAWS", "0.3"))
"""Of the examples that each test names; `.ci/run` tries all of them, and more than 1 are for nights."""


def draws(all_of_them: int) -> int:
    """Return how many of a test's examples to try."""
    return max(1, round(all_of_them * SHARE))
