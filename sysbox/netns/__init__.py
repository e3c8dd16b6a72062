"""A container's network: links, addresses, packet filter rules."""
