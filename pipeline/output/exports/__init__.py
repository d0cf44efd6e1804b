"""Files that are made of a complete store, a kind a file; all modules here are imported."""
