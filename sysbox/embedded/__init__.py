"""The embedded host: a real systemd as PID 1 of namespaces, where the machine's PID 1 is not systemd.

`state` (where it is recorded), `select` (whether to use it) and `enter` (join it) are hot; `boot`, `root`,
`quiet`, `cgroups` and `stop` are cold and imported only when a host has to be started or stopped.
"""
