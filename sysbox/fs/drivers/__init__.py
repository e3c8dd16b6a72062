"""Storage drivers, one per file."""
