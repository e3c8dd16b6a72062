"""A container at rest: its record, its name, its locks, what is known of its runs."""
