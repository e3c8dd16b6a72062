"""sysbox.conf: an administrator's defaults for new containers."""
