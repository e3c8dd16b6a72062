"""One line of `sysbox doctor`."""

from __future__ import annotations

from sysbox.base.frozen import Frozen

YES = "yes"
WRITTEN = "written"  # by sysbox, since systemd has no property for it
IDLE = "no effect"  # it can be set, and nothing acts on it yet
NO = "no"
MISSING = "missing"  # and without it no container runs


class Check(Frozen):
    """What was looked at, what was found, and what to do about it."""

    area: str
    name: str
    state: str
    detail: str = ""  # where it is, or the reason of a "no"
    advice: str = ""


def needed(area: str, name: str, problem: str, detail: str = "", advice: str = "") -> Check:
    """Something without which no container runs; `problem` is why it is not there, "" if it is."""
    if problem:
        return Check(area=area, name=name, state=MISSING, detail=problem, advice=advice)
    return Check(area=area, name=name, state=YES, detail=detail)


def useful(area: str, name: str, problem: str, detail: str = "", advice: str = "") -> Check:
    """Something that only some containers need."""
    if problem:
        return Check(area=area, name=name, state=NO, detail=problem, advice=advice)
    return Check(area=area, name=name, state=YES, detail=detail)
