"""Everything that speaks to systemd: unit names, properties, D-Bus."""
