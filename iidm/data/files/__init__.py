"""Which files there are, by name, and their bytes."""
