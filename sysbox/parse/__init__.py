"""One text, one value: what the command line, unit files and records are given."""
