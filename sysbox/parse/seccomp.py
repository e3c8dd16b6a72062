"""The value of `seccomp=`: a profile by its name, a file, or a word of docker's.

A name stands for NAME.json in one of DIRECTORIES; it is kept as a name, and looked up at each start.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.suggest import did_you_mean
from sysbox.parse.common import ALNUM, NAME, absolute, bad
from sysbox.spec import RECORD

# the administrator's profiles come before those of packages
DIRECTORIES = tuple(f"{one}/seccomp" for one in reversed(paths.CONFIGURATION))
_WORDS = ("default", "unconfined")
# what others call these, in lower case -> what it is called here
_OTHERS = {
    **dict.fromkeys(("none", "off", "false", "no", "disable", "disabled"), "unconfined"),
    **dict.fromkeys(
        ("on", "true", "yes", "runtimedefault", "runtime/default", "docker/default"), "default"
    ),
    **dict.fromkeys(("record", "recorded"), f"{RECORD}FILE"),
}
WORDS = ("builtin", *_WORDS)  # neither a file nor the name of one
_LONGEST = 128  # characters of a name
_SUFFIX = ".json"


def parse_profile(value: str, flag: str, text: str) -> str:
    """What a record keeps: "default", "unconfined", the name of a profile, the absolute path of a file, or
    "record:" and such a path.

    A word without a slash that names no profile is a file of the working directory, if it exists. Raises
    SpecError for other words.
    """
    if value in WORDS:
        return "default" if value == "builtin" else value
    if value.startswith(RECORD):
        file = value.removeprefix(RECORD)
        if not file or file.endswith("/"):
            bad(flag, text, "not record:FILE", "FILE is where the profile is written")
        return RECORD + absolute(file)
    if hint := _meant(value):
        bad(flag, text, "no such profile", hint)
    if "/" in value:
        return absolute(value)
    if path_of(value):
        return value
    if not _exists(value):
        reason, hint = nowhere(value)
        bad(flag, text, reason, hint)
    return absolute(value)


def _meant(value: str) -> str:
    """A hint for a word of another tool, or record:FILE written otherwise; "" for a profile or a file."""
    word = value.lower()
    other = _OTHERS.get(word, "")
    if word.startswith((RECORD, "record=")):
        other = RECORD + (value[len(RECORD) :] or "FILE")
    if not other or path_of(value) or _exists(value):
        return ""
    return f"did you mean {other}?"


def path_of(name: str) -> str:
    """The file of the profile with this name; "" if there is none."""
    if not name or len(name) > _LONGEST or name[0] not in ALNUM or not NAME.issuperset(name):
        return ""
    for directory in DIRECTORIES:
        path = f"{directory}/{name}{_SUFFIX}"
        if _exists(path):
            return path
    return ""


def names() -> tuple[str, ...]:
    """The names of all profiles, sorted."""
    found: set[str] = set()
    for directory in DIRECTORIES:
        try:
            found.update(posix.listdir(directory))
        except OSError:
            continue  # ignoring: there is no such directory, or the user may not read it
    bare = (one.removesuffix(_SUFFIX) for one in found if one.endswith(_SUFFIX))
    return tuple(sorted(one for one in bare if path_of(one)))


def nowhere(name: str) -> tuple[str, str]:
    """(why a word is no profile, what to do), for an error."""
    hint = did_you_mean(name, (*names(), *_WORDS))
    hint = hint or f"put it there as {name[:_LONGEST]}{_SUFFIX}; a file has a slash, as in ./{name}"
    return f"no profile of this name in {' or '.join(DIRECTORIES)}", hint


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except (OSError, ValueError):
        return False
    return True
