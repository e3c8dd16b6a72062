"""Whether a container's first process is systemd, and what is different about its end then. Pure.

What podman calls its systemd mode; what it adds to a plan is container/systemd_plan.py's to decide.
"""

from __future__ import annotations

import _signal

from sysbox.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

MODES = ("auto", "always", "false")
JOURNAL = "/var/log/journal"

_INITS = ("/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init")


def is_systemd(argv: tuple[str, ...]) -> bool:
    """Whether a command is systemd, by its path: podman's rule."""
    return argv[0] in _INITS or argv[0].rpartition("/")[2] == "systemd"


def applies(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether the container is in systemd mode. `argv` is its command as resolved.

    Raises SpecError for `always` where systemd would not be PID 1.
    """
    if spec.systemd == "false" or (spec.systemd == "auto" and not is_systemd(argv)):
        return False
    wrong = ""
    if spec.namespaces.pid != "private":
        wrong = f"--pid {spec.namespaces.pid}"
    elif spec.init:
        wrong = "--init"
    if wrong and spec.systemd == "always":
        raise SpecError(
            f"--systemd always: systemd must be PID 1, and with {wrong} it is not",
            hint=f"leave out {wrong.split()[0]}",
        )
    return not wrong


def chosen_by_user(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether it was the user who asked for systemd, and not the image by the name of its own command."""
    typed = spec.entrypoint or (spec.command and argv == spec.command)
    return spec.systemd == "always" or bool(typed)


def stop_signal(spec: ContainerSpec, argv: tuple[str, ...]) -> str:
    """The one that asks the container to end, where neither its user nor its image has chosen one."""
    # systemd(1), SIGNALS: of SIGTERM it makes that it executes itself anew
    return "SIGRTMIN+3" if is_systemd(argv) or spec.systemd == "always" else "SIGTERM"


def keeps_journal(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether its journal is beside the record: readable from outside, running or not, and gone with the
    container. A mount of the user's own goes before that.
    """
    return applies(spec, argv) and all(mount.target != JOURNAL for mount in spec.mounts)


def journal_directory(directory: str) -> str:
    """Where that is, in a container's own directory."""
    return f"{directory}/journal"


# Of reboot(2) the kernel makes an end of the pid namespace's PID 1 by a signal that can reach it in no other
# way (pid_namespaces(7)); the supervisor then ends with 128 plus that.
RESTART, HALT = _signal.SIGHUP, _signal.SIGINT
STATUSES = (128 + RESTART, 128 + HALT)


def exit_status(spec: ContainerSpec, argv: tuple[str, ...], code: int) -> int:
    """Of a container whose supervisor saw `code`: a systemd that was shut down has not failed."""
    return 0 if code in STATUSES and applies(spec, argv) else code
