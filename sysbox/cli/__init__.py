"""The command line: the option table, one verb per file, output formats."""
