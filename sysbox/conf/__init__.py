"""sysbox.conf: the defaults of new containers, as an administrator has them."""
