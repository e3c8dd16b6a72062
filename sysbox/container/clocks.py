"""Which time namespace a container is in, and what its clocks show. Pure.

By default a container has one of its own, in which uptime counts from its start (time_namespaces(7)). It
shares the clocks of the host, or of another container, with which it shares processes or memory: the start
times of processes, and times in shared memory, would not agree otherwise. docker has no time namespaces; the
OCI runtime specification has `linux.timeOffsets`.
"""

from __future__ import annotations

from sysbox.base.errors import Unsupported
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

# in place of a mode: the namespace of the process whose pid namespace is joined
OF_PROCESS = "process"


class Clocks(Frozen):
    """What was decided."""

    mode: str  # private, host, container:ID, ns:PATH, or OF_PROCESS
    # clock -> nanoseconds by which it differs from the host's; one that is left out counts from the start
    offsets: dict[str, int] = {}  # noqa: RUF012
    reason: str = ""  # why it is not private, where nobody asked for a mode

    def describe(self) -> str:
        """One line for `--dry-run`."""
        if self.mode == "private":
            shown = (f"{one} {_signed(self.offsets.get(one))}" for one in ("monotonic", "boottime"))
            return f"clocks of its own: {', '.join(shown)}"
        if self.mode == "host":
            return f"clocks of the host ({self.reason})" if self.reason else "clocks of the host"
        return (
            f"clocks of {'the processes that it joins' if self.mode == OF_PROCESS else self.mode}"
        )


def decide(spec: ContainerSpec, lack: str) -> Clocks:
    """`lack` is why no new time namespace can be made, "" if one can. Raises Unsupported where one was asked
    for by name.
    """
    mode, reason = _mode(spec)
    if mode == "private" and lack:
        if spec.namespaces.time == "auto" and not spec.time_offset:
            return Clocks(mode="host", reason=lack)
        flag = "--time-offset" if spec.time_offset else "--timens private"
        raise Unsupported(
            f"{flag}: {lack}", hint=f"leave out {flag}: the clocks are then the host's"
        )
    return Clocks(mode=mode, offsets=spec.time_offset, reason=reason)


def shared(spec: ContainerSpec) -> str:
    """Whose time namespace is joined: container:ID, ns:PATH or OF_PROCESS; "" where none is."""
    mode = _mode(spec)[0]
    return "" if mode in ("private", "host") else mode


def _mode(spec: ContainerSpec) -> tuple[str, str]:
    """The mode, and the flag that decides it if that is not --timens or --time-offset."""
    asked = spec.namespaces
    if spec.time_offset:
        return "private", ""
    if asked.time != "auto":
        return asked.time, ""
    if spec.security.privileged:
        # it sees the machine: the times of the kernel's log, of other processes
        return "host", "--privileged"
    for flag, other in (("--pid", asked.pid), ("--ipc", asked.ipc)):
        if other == "host" or other.startswith("container:"):
            return other, f"{flag} {other}"
    if spec.pod and asked.ipc.startswith("ns:"):
        return "host", f"--pod {spec.pod}"
    if asked.pid.startswith("ns:"):
        return OF_PROCESS, f"--pid {asked.pid}"
    return "private", ""


def _signed(offset: int | None) -> str:
    if offset is None:
        return "from 0"
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 10**9}.{abs(offset) % 10**9:09}s"
