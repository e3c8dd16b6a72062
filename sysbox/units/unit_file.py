"""The unit file of a container with a restart policy, and whether systemd starts it at boot.

The file's directory has lower priority than /etc/systemd/system, so that `systemctl mask` has a place for its
link; `systemctl enable` and `disable` make and remove the link that systemd follows at boot. An
administrator's choice about the boot is saved with the container, for a host that keeps its containers and
not its /etc.
"""

from __future__ import annotations

import posix

from sysbox.base import program
from sysbox.base.errors import FormatError, KernelError, SysboxError
from sysbox.base.files import is_directory, read_file, sync_directory, unlink, write_file
from sysbox.container import store, systemd_mode
from sysbox.host import exists
from sysbox.units import names, serviceplan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record

_AT_BOOT = ("always", "unless-stopped")


def plan_of(record: Record) -> serviceplan.ServicePlan:
    """The plan of the service that supervises the container."""
    booted = systemd_mode.applies(record.spec, record.argv)
    statuses = systemd_mode.STATUSES if booted else ()
    return serviceplan.plan_service(record.id, record.name, record.spec, program.launcher, statuses)


def _joined(record: Record) -> tuple[str, ...]:
    """The services of the containers whose namespaces it joins, if they have a unit file or will get one.

    Other containers are not started at boot. Their service is transient, and a unit that stays must not refer
    to it: no new transient unit could take that name.
    """
    asked = record.spec.namespaces
    modes = (asked.network, asked.pid, asked.ipc, asked.uts, asked.cgroup, asked.time)
    found = []
    for mode in dict.fromkeys(one for one in modes if one.startswith("container:")):
        try:
            other = store.find(mode.removeprefix("container:"))
        except SysboxError:
            continue  # ignoring: a missing container cannot be waited for, and the start will report it
        if other.spec.restart.name != "no" or is_installed(other.id):
            found.append(names.service_unit(other.id))
    return tuple(found)


def service_of(record: Record) -> str:
    """The service that supervises the container: the one that declares it, or one of its own."""
    return record.spec.unit or names.service_unit(record.id)


def has_policy(record: Record) -> bool:
    """Whether its service has a unit file, and outlives its scope: it is declared, or has or had a policy."""
    spec = record.spec
    return spec.restart.name != "no" or spec.unit != "" or is_installed(record.id)


def is_installed(container_id: str) -> bool:
    """Whether the container has a unit file, or an administrator's link in its place."""
    return any(exists(path) for path in _paths(container_id))


def install(record: Record, *, wanted: bool = True) -> None:
    """Write the unit file; systemd starts it at boot if `wanted` and its policy says so. Raises KernelError.

    systemd reads a new file when the unit is started. A masked unit stays masked.
    """
    if record.spec.unit or is_masked(record.id):
        return
    plan = plan_of(record).replace(joined=_joined(record))
    path, old = _paths(record.id)
    if not is_directory(serviceplan.DIRECTORY):
        _make(serviceplan.DIRECTORY)
    text = serviceplan.unit_file(plan).encode("utf-8", "surrogateescape")
    at_boot = plan.restart in _AT_BOOT
    if read_file(path) != text:
        # what a power cut may leave of it else is an empty file, which masks the unit
        write_file(path, text, 0o644, durable=at_boot)
    if unlink(old):
        unlink(_link(record.id))  # it pointed to the old file
    set_wanted(record, wanted=wanted and at_boot)


def set_wanted(record: Record, *, wanted: bool) -> None:
    """Make or remove the link that systemd follows at boot, as systemctl(1) does. Raises KernelError."""
    link = _link(record.id)
    if not wanted:
        unlink(link)
        return
    try:
        if not is_directory(serviceplan.WANTS):
            _make(serviceplan.WANTS)
        posix.symlink(_paths(record.id)[0], link)
        # without the link, it counts as disabled after a power cut
        sync_directory(serviceplan.WANTS)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("make the link", link, error) from None


def _make(directory: str) -> None:
    try:
        posix.mkdir(directory, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("make the directory", directory, error) from None


def is_masked(container_id: str) -> bool:
    """Whether an administrator has masked the service: the link that `systemctl mask` makes."""
    unit = names.service_unit(container_id)
    for directory in (serviceplan.ADMINISTRATORS, "/run/systemd/system"):
        try:
            if posix.readlink(f"{directory}/{unit}") == "/dev/null":
                return True
        except OSError:
            continue  # there is none
    return False


def boot_state(record: Record) -> str:
    """Whether systemd starts it at boot: "enabled"; "masked"; "disabled", by an administrator or because its
    user stopped an unless-stopped container; "" if its policy is not for the boot, or it was never started.
    """
    if is_masked(record.id):
        return "masked"
    if record.spec.restart.name not in _AT_BOOT or not is_installed(record.id):
        return ""
    return "enabled" if _is_link(_link(record.id)) else "disabled"


def is_disabled(record: Record) -> bool:
    """Whether an administrator has disabled or masked its start at boot."""
    return boot_state(record) in ("disabled", "masked") and not exists(_marker(record))


def note_stopped(record: Record) -> None:
    """Note that its user stopped it: unless-stopped then does not start it at boot, until its user does."""
    if record.spec.restart.name == "unless-stopped" and not is_disabled(record):
        set_wanted(record, wanted=False)
        write_file(_marker(record), b"")


def note_started(record: Record) -> None:
    """Note that its user started it; an administrator's choice about the boot still holds."""
    wanted = not is_disabled(record)
    unlink(_marker(record))
    install(record, wanted=wanted)


def save_boot_choice(record: Record) -> None:
    """Save an administrator's choice about the boot with the container."""
    if is_disabled(record):
        write_file(_boot_choice(record), boot_state(record).encode("utf-8", "surrogateescape"))
    elif is_installed(record.id):
        unlink(_boot_choice(record))


def restore(record: Record) -> bool:
    """Write a missing unit file again, for a host that kept its containers and not its /etc.

    Returns whether the caller must start the container, since systemd did not at boot. Raises KernelError.
    """
    if record.spec.restart.name == "no" or is_installed(record.id):
        return False
    said = _read(_boot_choice(record))
    if said == b"masked":
        link = _paths(record.id)[1]
        try:
            posix.symlink("/dev/null", link)
        except OSError as error:
            raise KernelError.of("make the link", link, error) from None
        return False
    install(record, wanted=not said and not exists(_marker(record)))
    return boot_state(record) == "enabled"


def uninstall(container_id: str) -> bool:
    """Remove the file and the links; returns whether there was a file."""
    unlink(_link(container_id))
    gone = [unlink(path) for path in _paths(container_id)]
    return any(gone)


def list_installed() -> list[str]:
    """The ids of all containers that have a unit file."""
    found: dict[str, None] = {}
    for directory in (serviceplan.DIRECTORY, serviceplan.ADMINISTRATORS):
        try:
            listed = posix.listdir(directory)
        except FileNotFoundError:
            continue
        found |= dict.fromkeys(one for one in map(names.container_of, listed) if one)
    return list(found)


def _paths(container_id: str) -> tuple[str, str]:
    """The paths of the unit file, and of an administrator's in its place (older versions wrote there)."""
    unit = names.service_unit(container_id)
    return f"{serviceplan.DIRECTORY}/{unit}", f"{serviceplan.ADMINISTRATORS}/{unit}"


def _link(container_id: str) -> str:
    return f"{serviceplan.WANTS}/{names.service_unit(container_id)}"


def _marker(record: Record) -> str:
    return f"{record.directory}/stopped"


def _boot_choice(record: Record) -> str:
    return f"{record.directory}/boot"


def _is_link(path: str) -> bool:
    try:
        posix.readlink(path)
    except OSError:
        return False
    return True


def _read(path: str) -> bytes | None:
    try:
        return read_file(path)
    except FormatError:
        return None  # ignoring: sysbox did not write this file
