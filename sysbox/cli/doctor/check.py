"""One line of `sysbox doctor`."""

from __future__ import annotations

from sysbox.base.frozen import Frozen

YES = "yes"
WRITTEN = "written"  # by sysbox, since systemd has no property for it
IDLE = "no effect"  # it can be set, but nothing acts on it now
NO = "no"
MISSING = "missing"  # no container runs without it


class Check(Frozen):
    """What was checked, the result, and what to do about it."""

    area: str
    name: str
    state: str
    detail: str = ""  # where it is, or why the state is "no"
    advice: str = ""


def needed(area: str, name: str, problem: str, detail: str = "", advice: str = "") -> Check:
    """A check that every container depends on; `problem` is why it failed, "" if it passed."""
    if problem:
        return Check(area=area, name=name, state=MISSING, detail=problem, advice=advice)
    return Check(area=area, name=name, state=YES, detail=detail)


def useful(area: str, name: str, problem: str, detail: str = "", advice: str = "") -> Check:
    """A check that only some containers depend on; `problem` as in `needed`."""
    if problem:
        return Check(area=area, name=name, state=NO, detail=problem, advice=advice)
    return Check(area=area, name=name, state=YES, detail=detail)
