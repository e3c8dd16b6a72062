"""What this host's AppArmor can give, and sysbox's own profiles: loaded when a container first needs one.

The compiler is the host's, apparmor_parser(8). A mark in /run tells which version of the text is in the
kernel, so a start reads the kernel's list and one link, and runs no program.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.files import is_directory, make_private, unlink, write_file
from sysbox.base.look import read_text
from sysbox.host import exists
from sysbox.linux import apparmor, process, userns
from sysbox.security.apparmor import OWN, UNCONFINED, AppArmor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.host import HostFacts

# raise it with every change of security/apparmor_profile.py; a test enforces it
VERSION = 2

PARSER = "apparmor_parser"
_PATIENCE = "60"  # seconds; it takes half of one, ten on a slow machine
_TIMED_OUT = 124  # timeout(1)
MARKS = f"{paths.RUN}/apparmor"  # NAME -> VERSION, a link
_ABIS = "/etc/apparmor.d/abi"
_LOCAL = "/etc/apparmor.d/local"  # rules of the administrator's own
_ABSENT = AppArmor()


def look(facts: HostFacts, asked: str = "") -> AppArmor:
    """What can be given here to a container that has asked for the profile `asked`, "" for none.

    The kernel's list is read only for who depends on it.
    """
    if not facts.apparmor:
        return _ABSENT
    if not userns.is_initial():
        # its own profile holds what it makes, too
        return AppArmor(
            lack="a profile is given by the host alone, and this is a container",
            advice="choose it for this container, on the host",
        )
    if not posix.access(apparmor.LIST, posix.R_OK):
        return AppArmor(
            lack=f"{apparmor.LIST} cannot be read",
            advice="mount -t securityfs securityfs /sys/kernel/security",
        )
    parser = has_parser()
    needed = asked not in ("", *OWN) or not parser
    return AppArmor(lack="", loaded=tuple(apparmor.loaded()) if needed else (), parser=parser)


def has_parser() -> bool:
    """Whether the program that loads profiles is installed."""
    return "/" in process.find_program(PARSER)


def ensure(name: str) -> None:
    """Load a profile of sysbox's own, unless the kernel has this version of it.

    A profile that is not sysbox's is left alone. Raises Unsupported, KernelError.
    """
    if name not in OWN or (_marked(name) == str(VERSION) and name in apparmor.loaded()):
        return
    if not has_parser():
        return  # an older version's, or it was loaded by hand: it was there as the plan was made
    from sysbox.security import apparmor_profile  # once per boot

    abi = next((one for one in apparmor_profile.ABIS if exists(f"{_ABIS}/{one}")), "")
    # the parser compiles in a child: timeout(1) ends both, also if this process has been killed
    command = ["timeout", _PATIENCE, PARSER, "--replace", "--skip-cache", "--quiet"]
    text = apparmor_profile.text(name, abi, _description(name, abi)).encode("ascii")
    status, said = process.spawn(command, stdin=text, merge_stderr=True)
    if status:
        why = " ".join(said.decode("utf-8", "replace").split()) or f"exit status {status}"
        if status == _TIMED_OUT:
            why = f"it did not end within {_PATIENCE} seconds"
        # the parser does not say in which file the line is
        yours = f"{_LOCAL}/{name}"
        check = f"look at {yours}; " if exists(yours) else ""
        raise Unsupported(
            f"{PARSER} could not load the profile {name}: {why[:300]}",
            hint=f"{check}--security-opt apparmor=unconfined starts the container without one",
        )
    _mark(name)


def _description(name: str, abi: str) -> str:
    """Write the description that the profile is compiled for; its path.

    "" where the parser's own must do: it has none, or the administrator has rules about sockets, which must
    hold. Raises KernelError.
    """
    from sysbox.security import apparmor_profile  # as above

    yours = f"{_LOCAL}/{name}"
    if not abi or is_directory(yours) or apparmor_profile.about_sockets(read_text(yours)):
        return ""
    make_private(MARKS)
    path = f"{MARKS}/abi-{abi}"
    description = apparmor_profile.without_sockets(read_text(f"{_ABIS}/{abi}"))
    write_file(path, description.encode("utf-8", "surrogateescape"))
    return path


def of_running(record: Record, pid: int) -> str:
    """The profile for another process in a running container, whose first one is `pid`; "" is none.

    What it was given at its start, as far as the kernel still has it, whatever the default is by now.
    """
    if not userns.is_initial():
        return ""
    asked = record.spec.security.apparmor
    if asked:
        return "" if asked == UNCONFINED else asked
    found = apparmor.profile_of(pid)
    return found if found in OWN else ""


def _marked(name: str) -> str:
    try:
        return posix.readlink(_mark_of(name))
    except OSError:
        return ""


def _mark(name: str) -> None:
    """Note the version; without the mark the next start would load the profile again."""
    make_private(MARKS)
    mark = _mark_of(name)
    fresh = f"{mark}.{posix.getpid()}"
    unlink(fresh)  # of a start that was killed, and had this pid
    try:
        posix.symlink(str(VERSION), fresh)
        posix.rename(fresh, mark)
    except OSError as error:
        raise KernelError.of("write", mark, error) from None
    finally:
        unlink(fresh)


def _mark_of(name: str) -> str:
    return f"{MARKS}/{name}"
