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
# what other tools, and other options, call these, in lower case
_NONE = ("none", "off", "false", "no", "disable", "disabled", "unconfined", "unchanged")
_DEFAULTS = (
    "default", "on", "true", "yes", "enforce", "docker-default", "docker/default", "runtime/default",
    "runtimedefault", "crio-default", "cri-containerd.apparmor.d", "generated",
)  # fmt: skip
_BEGIN_DEFAULTS = ("containers-default", "container-default", "lxc-container-default")
_LOCAL = "localhost/"  # before a name in Kubernetes


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
        near = asked.lower() in _NONE
        hint = _meant(asked, ()) if near else f"{here.advice}, or leave out {flag}"
        raise SpecError(f"{flag}: {here.lack}", hint=hint)
    if asked in here.loaded or (asked in OWN and here.parser):
        return
    if asked in OWN:
        raise SpecError(f"{flag}: {NO_PARSER}", hint="apt-get install apparmor")
    raise SpecError(f"{flag}: the kernel has no such profile", hint=_meant(asked, here.loaded))


def _meant(asked: str, loaded: tuple[str, ...]) -> str:
    """What to do about a name that no profile has."""
    word = asked.lower()
    if word in _NONE:
        return f"did you mean '{UNCONFINED}'?"
    if word in _DEFAULTS or word.startswith(_BEGIN_DEFAULTS):
        return f"sysbox's own is {DEFAULT}, which containers have without this option"
    bare = asked.removeprefix(_LOCAL).strip("'\"")
    known = {*loaded, *OWN}
    near = f"did you mean '{bare}'?" if bare in known else did_you_mean(asked, known)
    load = "`apparmor_parser -r FILE` loads the profiles of a file"
    return f"{near} Else: {load}" if near else load
