"""The contract between an operation and the engine, and one operation a file; all modules here are imported."""
