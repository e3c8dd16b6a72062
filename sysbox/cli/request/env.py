"""The environment, and the volumes of the image, that the flags of `run`, `create` and `exec` ask for."""

from __future__ import annotations

import posix

from sysbox.parse.common import bad
from sysbox.parse.process import parse_env, parse_env_file

# what systemd says to the process that it starts, and a shell of itself: it means nothing in a container
_OF_THE_CALLER = frozenset(
    """CREDENTIALS_DIRECTORY FDSTORE INVOCATION_ID JOURNAL_STREAM LISTEN_FDNAMES LISTEN_FDS LISTEN_PID
    MAINPID MANAGERPID NOTIFY_SOCKET SYSTEMD_EXEC_PID WATCHDOG_PID WATCHDOG_USEC
    HOME PATH PWD OLDPWD SHLVL _ TERM LOGNAME USER SHELL""".split()
)


def of_caller() -> tuple[str, ...]:
    """ "NAME=VALUE" of the caller's environment, but for what is the caller's own.

    The image's variables, those of --env-file and of -e replace these.
    """
    found = []
    for name, value in posix.environ.items():
        text = name.decode("utf-8", "surrogateescape")
        if text not in _OF_THE_CALLER and not text.startswith("SYSBOX_"):
            found.append(f"{text}={value.decode('utf-8', 'surrogateescape')}")
    return tuple(found)


_IMAGE_VOLUMES = {"anonymous": "volume", "bind": "volume", "tmpfs": "tmpfs", "ignore": "ignore"}


def image_volumes(text: str) -> str:
    """What an image's volumes become, from --image-volume. Raises SpecError."""
    if text not in _IMAGE_VOLUMES:
        bad("--image-volume", text, "unknown kind", ", ".join(_IMAGE_VOLUMES))
    return _IMAGE_VOLUMES[text]


def build(files: list[str], texts: list[str]) -> tuple[str, ...]:
    """ "NAME=VALUE" of --env-file and -e; a later one replaces an earlier one of the same name.

    Raises SpecError.
    """
    found: dict[str, str] = {}
    for path in files:
        for one in parse_env_file(path, "--env-file"):
            found[one.partition("=")[0]] = one
    for text in texts:
        one_env = parse_env(text, "--env")
        if one_env is not None:
            found[one_env.partition("=")[0]] = one_env
    return tuple(found.values())
