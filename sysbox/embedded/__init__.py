"""The embedded host: a real systemd as PID 1 of namespaces, where the machine's PID 1 is not systemd.

`state` (its record), `enter` (whether to use it), `join` and `caller_root` are hot; `boot`, `root`,
`devices`, `quiet`, `cgroups`, `lock` and `stop` are imported only to start or stop a host.
"""
