"""The check of AppArmor: whether containers get a profile, and whether those that run still have theirs."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.cli.doctor.check import Check, useful
from sysbox.container import store
from sysbox.linux import apparmor
from sysbox.run.apparmor import MARKS, look
from sysbox.security.apparmor import DEFAULT, NO_PARSER, OWN, UNCONFINED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.host import HostFacts

_DENY = ("enforce", "kill")  # modes in which a profile denies
_MOST = 5  # names in a line


def profiles(facts: HostFacts) -> Check:
    """Whether containers get a profile, and if not, why."""
    if not facts.apparmor:
        return useful("security", "AppArmor", "not active")
    here = look(facts)
    loaded = apparmor.loaded()
    problem, advice = here.lack, here.advice
    if not problem and not here.parser:
        problem = f"{NO_PARSER}: containers run without a profile"
        advice = "apt-get install apparmor"
    if not problem:
        problem, advice = _not_in_force(loaded)
    there = DEFAULT in loaded
    detail = f"{DEFAULT} is loaded" if there else f"the first container loads {DEFAULT}"
    return useful("security", "AppArmor", problem, detail, advice)


def _not_in_force(loaded: dict[str, str]) -> tuple[str, str]:
    """(what does not hold containers although it should, what to do); ("", "") if all does."""
    for name in OWN:
        if (mode := loaded.get(name, _DENY[0])) not in _DENY:
            advice = f"`rm -r {MARKS}`: the next start loads sysbox's own"
            return f"{name} is in mode {mode}: it denies nothing", advice
    if posix.geteuid():
        return "", ""  # an ordinary user may not read what containers there are
    bare = [one.name for one in store.all_records() if _lacks(one)]
    if not bare:
        return "", ""
    names = ", ".join(bare[:_MOST]) + (", ..." if len(bare) > _MOST else "")
    return f"running without their profile: {names}", "`sysbox restart` gives it to them"


def _lacks(record: Record) -> bool:
    """Whether the container runs without the profile that it has after its next start."""
    security = record.spec.security
    if security.apparmor == UNCONFINED or (security.privileged and not security.apparmor):
        return False
    try:
        running = store.runtime(record.id)
    except SysboxError:
        return False  # ignoring: the other verbs say what is wrong with it
    if running is None or not running.started_ns or not running.alive():
        return False
    return apparmor.profile_of(running.pid) == UNCONFINED
