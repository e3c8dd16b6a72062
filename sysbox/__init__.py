"""sysbox: containers as systemd scopes. This module is empty, so that importing it costs nothing."""
