"""The network namespace of a container: links, addresses, rules."""
