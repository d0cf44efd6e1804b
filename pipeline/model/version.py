"""The version of rasterpipe."""

__version__ = "0.1.0"
