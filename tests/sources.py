"""The modules of the package, for tests that read their source."""

from pathlib import Path

ROOT = Path(__file__).parent.parent / "pipeline"


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
