"""The modules of the package, for tests that read their source."""

from pathlib import Path

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT / "pipeline"
SHARED = PROJECT.parent / "shared" / "data"
"""Real rasters; tests that need them skip where they are not."""


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
