"""The embedded host: a real systemd as PID 1 of namespaces, where the machine's PID 1 is not systemd.

`state` (where it is recorded) and `enter` (whether to use it, and joining it) are hot; `boot`, `root`,
`devices`, `quiet`, `cgroups`, `lock` and `stop` are imported only when one has to be started or stopped.
"""
