"""Where results go: what lies there decides; the journal, the store, and the files that are made of it."""
