"""The unit file of a container with a restart policy, and whether it is wanted at boot.

It lies where files of an administrator's win over it, so that `systemctl mask` has a place for its link;
`systemctl enable` and `disable` make and remove the link that is followed at boot. What an administrator has
said of the boot is kept with the container, for a host that keeps its containers and not its /etc.
"""

from __future__ import annotations

import posix

from sysbox.base import program
from sysbox.base.errors import FormatError, KernelError, SysboxError
from sysbox.base.files import is_directory, read_file, unlink, write_file
from sysbox.container import store, systemd_mode
from sysbox.host import exists
from sysbox.units import names, serviceplan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record

_AT_BOOT = ("always", "unless-stopped")


def plan_of(record: Record) -> serviceplan.ServicePlan:
    """The service that supervises it."""
    booted = systemd_mode.applies(record.spec, record.argv)
    statuses = systemd_mode.STATUSES if booted else ()
    return serviceplan.plan_service(record.id, record.name, record.spec, program.launcher, statuses)


def _joined(record: Record) -> tuple[str, ...]:
    """The services of the containers whose namespaces it joins, of those that have a unit file or will.

    Any other is not started at boot. Its service is transient, and must not be named by a unit that stays:
    the next one could not have its name.
    """
    asked = record.spec.namespaces
    modes = (asked.network, asked.pid, asked.ipc, asked.uts, asked.cgroup)
    found = []
    for mode in dict.fromkeys(one for one in modes if one.startswith("container:")):
        try:
            other = store.find(mode.removeprefix("container:"))
        except SysboxError:
            continue  # ignoring: without it there is nothing to wait for, and the start will say so
        if other.spec.restart.name != "no" or is_installed(other.id):
            found.append(names.service_unit(other.id))
    return tuple(found)


def is_installed(container_id: str) -> bool:
    """Whether there is a file, or an administrator's link in its place."""
    return any(exists(path) for path in _paths(container_id))


def install(record: Record, *, wanted: bool = True) -> None:
    """Write the unit file, and have it `wanted` at boot where its policy says so. Raises KernelError.

    A file that is new to systemd is read when the unit is started. One that is masked stays so.
    """
    if is_masked(record.id):
        return
    plan = plan_of(record).replace(joined=_joined(record))
    path, old = _paths(record.id)
    if not is_directory(serviceplan.DIRECTORY):
        _make(serviceplan.DIRECTORY)
    text = serviceplan.unit_file(plan).encode("utf-8", "surrogateescape")
    if read_file(path) != text:
        write_file(path, text, 0o644)
    if unlink(old):
        unlink(_link(record.id))  # which led there
    set_wanted(record, wanted=wanted and plan.restart in _AT_BOOT)


def set_wanted(record: Record, *, wanted: bool) -> None:
    """What `systemctl enable` and `disable` do: a link that is followed at boot. Raises KernelError."""
    link = _link(record.id)
    if not wanted:
        unlink(link)
        return
    try:
        if not is_directory(serviceplan.WANTS):
            _make(serviceplan.WANTS)
        posix.symlink(_paths(record.id)[0], link)
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
    """Whether an administrator has masked it: the link of `systemctl mask`."""
    unit = names.service_unit(container_id)
    for directory in (serviceplan.ADMINISTRATORS, "/run/systemd/system"):
        try:
            if posix.readlink(f"{directory}/{unit}") == "/dev/null":
                return True
        except OSError:
            continue  # there is none
    return False


def boot_state(record: Record) -> str:
    """What becomes of it at boot: "" (it has no policy for that, or was never started), "enabled", "masked",
    or "disabled": by an administrator, or since its user has stopped one that starts unless stopped.
    """
    if is_masked(record.id):
        return "masked"
    if record.spec.restart.name not in _AT_BOOT or not is_installed(record.id):
        return ""
    return "enabled" if _is_link(_link(record.id)) else "disabled"


def is_disabled(record: Record) -> bool:
    """Whether an administrator wants it not to be started at boot."""
    return boot_state(record) in ("disabled", "masked") and not exists(_marker(record))


def stopped(record: Record) -> None:
    """Its user has stopped it: unless-stopped is not started at boot any more, until its user starts it."""
    if record.spec.restart.name == "unless-stopped" and not is_disabled(record):
        set_wanted(record, wanted=False)
        write_file(_marker(record), b"")


def note_started(record: Record) -> None:
    """Its user has started it: what an administrator has said of the boot holds all the same."""
    wanted = not is_disabled(record)
    unlink(_marker(record))
    install(record, wanted=wanted)


def remember(record: Record) -> None:
    """Keep with the container what an administrator has said of the boot."""
    if is_disabled(record):
        write_file(_boot_choice(record), boot_state(record).encode("utf-8", "surrogateescape"))
    elif is_installed(record.id):
        unlink(_boot_choice(record))


def restore(record: Record) -> bool:
    """Write the unit file anew where it is not there; whether it is to be started, as systemd has not.

    So a container comes back on a host that kept its state and not its /etc.
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
    """Remove the file and the links; whether there was a file."""
    unlink(_link(container_id))
    gone = [unlink(path) for path in _paths(container_id)]
    return any(gone)


def installed() -> list[str]:
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
    """Of the file, and of an administrator's in its place, where the first sysbox had its own."""
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
        return None  # ignoring: it is nothing of ours
