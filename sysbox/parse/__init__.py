"""Parse single values of the command line, unit files and records: one text in, one value out."""
