"""How many examples the drawn tests try."""

from pipeline.testing.draws import SHARE, draws

__all__ = ["SHARE", "draws"]
