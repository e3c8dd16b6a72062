"""Which AppArmor profile the processes of a container have. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import Security

UNCONFINED = "unconfined"
DEFAULT = "sysbox-default"
SYSTEMD = "sysbox-systemd"  # for those that may mount
OWN = (DEFAULT, SYSTEMD)
NOT_ACTIVE = "AppArmor is not active in this kernel"
NO_PARSER = "apparmor_parser is not installed"


class AppArmor(Frozen):
    """What this host can give a container."""

    lack: str = NOT_ACTIVE  # why it can give no profile; "" where it can
    advice: str = "boot the host with apparmor=1 security=apparmor"
    loaded: tuple[str, ...] = ()  # the profiles that the kernel has
    parser: bool = False  # whether apparmor_parser, which loads sysbox's own, is there


def decide(security: Security, here: AppArmor, *, mounts: bool) -> str:
    """The profile; "" where sysbox gives none, and the container has that of sysbox, mostly none.

    `mounts`: its first process is systemd, and may mount. Nobody has asked for the default: a host that
    cannot load it starts the container without, as podman does. Raises SpecError for a profile that was
    asked for and is not there.
    """
    asked = security.apparmor
    if asked == UNCONFINED or (security.privileged and not asked):
        return ""
    if asked:
        _check(asked, here)
        return asked
    wanted = SYSTEMD if mounts else DEFAULT
    return wanted if not here.lack and (here.parser or wanted in here.loaded) else ""


def _check(asked: str, here: AppArmor) -> None:
    flag = f"--security-opt apparmor={asked}"
    if here.lack:
        raise SpecError(f"{flag}: {here.lack}", hint=f"{here.advice}, or leave out {flag}")
    if asked in here.loaded or (asked in OWN and here.parser):
        return
    if asked in OWN:
        raise SpecError(f"{flag}: {NO_PARSER}", hint="apt-get install apparmor")
    near = did_you_mean(asked, {*here.loaded, *OWN})
    load = "`apparmor_parser -r FILE` loads the profiles of a file"
    raise SpecError(
        f"{flag}: the kernel has no such profile", hint=f"{near} Else: {load}" if near else load
    )
