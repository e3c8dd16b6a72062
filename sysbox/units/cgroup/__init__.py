"""The cgroups of a scope: what systemd leaves to us."""
