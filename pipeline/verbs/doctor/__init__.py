"""What keeps runs from working on this machine, or makes them worse than need be, and what to do about it."""
