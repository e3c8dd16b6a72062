"""Which program listens on a port of the host: proc_pid_net(5), and the descriptors of all processes."""

from __future__ import annotations

import posix

from sysbox.host import read_text

_SCTP_LISTENS = "10"  # SCTP_SS_LISTENING
_LISTENS = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; UDP sockets without a peer have TCP_CLOSE


def owner(protocol: str, port: int) -> str:
    """ "nginx (pid 812)"; "" where no process has it, or that cannot be found out."""
    wanted = {f"socket:[{inode}]" for inode in inodes(protocol, port)}
    if not wanted:
        return ""
    for pid in sorted(filter(str.isdigit, posix.listdir("/proc")), key=int):
        try:
            numbers = posix.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended
        for number in numbers:
            try:
                if posix.readlink(f"/proc/{pid}/fd/{number}") in wanted:
                    return f"{read_text(f'/proc/{pid}/comm').strip()} (pid {pid})"
            except OSError:
                continue  # it was closed meanwhile
    return ""


def inodes(protocol: str, port: int) -> list[int]:
    """The sockets that listen on the port, at any address."""
    if protocol == "sctp":
        return sctp_listening(read_text("/proc/net/sctp/eps"), port)
    found = []
    for name in (protocol, f"{protocol}6"):
        found += listening(read_text(f"/proc/net/{name}"), port, _LISTENS.get(protocol, ""))
    return found


def listening(text: str, port: int, state: str) -> list[int]:
    """`inodes` in the text of /proc/net/tcp or the like (pure)."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) <= 9 or fields[3] != state:
            continue
        if int(fields[1].rpartition(":")[2], 16) == port:
            found.append(int(fields[9]))
    return found


def sctp_listening(text: str, port: int) -> list[int]:
    """The same in the text of /proc/net/sctp/eps (pure): ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        int(row[7])
        for row in rows
        if len(row) > 7 and (row[3], row[5]) == (_SCTP_LISTENS, str(port))
    ]
