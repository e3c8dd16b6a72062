"""sysbox: containers as systemd scopes. Nothing lives here, so that importing it costs nothing."""
