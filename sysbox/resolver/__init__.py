"""The resolver of a network: what `sysbox _resolve NETWORK` runs, started by the network's socket."""
