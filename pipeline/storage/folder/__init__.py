"""Where files lie: a folder on a disk or a prefix in an object store, by the same few words."""
