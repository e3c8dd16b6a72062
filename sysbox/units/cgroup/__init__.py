"""The cgroups of a scope: reading and freezing them, and the work that systemd does not do."""
