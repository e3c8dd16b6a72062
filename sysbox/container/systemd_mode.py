"""systemd mode: whether a container's first process is systemd, and how it then ends. Pure.

The mode is podman's; container/systemd_plan.py decides what it adds to a plan.
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
    """Whether the user asked for systemd: the image's own command alone is no such request."""
    typed = spec.entrypoint or (spec.command and argv == spec.command)
    return spec.systemd == "always" or bool(typed)


def stop_signal(spec: ContainerSpec, argv: tuple[str, ...]) -> str:
    """The signal that asks the container to end, where neither the user nor the image names one."""
    # systemd(1), SIGNALS: systemd re-executes itself on SIGTERM
    return "SIGRTMIN+3" if is_systemd(argv) or spec.systemd == "always" else "SIGTERM"


def keeps_journal(spec: ContainerSpec, argv: tuple[str, ...]) -> bool:
    """Whether the journal of systemd inside is in the container's directory: readable from the host, running
    or not, and removed with the container. A mount of the user's at JOURNAL takes precedence.
    """
    return applies(spec, argv) and all(mount.target != JOURNAL for mount in spec.mounts)


def journal_directory(directory: str) -> str:
    """The path of that journal, in a container's `directory`."""
    return f"{directory}/journal"


# On reboot(2) in a pid namespace the kernel ends its PID 1 by one of these signals, which can reach it in no
# other way (pid_namespaces(7)); the exit status is then 128 plus the signal.
RESTART, HALT = _signal.SIGHUP, _signal.SIGINT
STATUSES = (128 + RESTART, 128 + HALT)


def exit_status(spec: ContainerSpec, argv: tuple[str, ...], code: int) -> int:
    """The exit status of a container whose supervisor saw `code`: a systemd that shut down has not failed."""
    return 0 if code in STATUSES and applies(spec, argv) else code
