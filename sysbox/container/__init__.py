"""A container at rest: its record, its name, its locks, and the state of its runs on disk."""
