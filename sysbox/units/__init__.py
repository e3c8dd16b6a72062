"""Everything that concerns systemd: unit names, properties, D-Bus, the journal."""
