"""From argv to values: the hot parser, and click's commands."""
