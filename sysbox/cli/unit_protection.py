"""What a declaration asks of filters, labels, profiles and covered paths: whether its service can have it."""

from __future__ import annotations

import posix

from sysbox.base.errors import SpecError, SysboxError
from sysbox.host import probe
from sysbox.parse import seccomp as profiles
from sysbox.spec import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.spec import Security

_FLAG = "--security-opt "
# what a value of the flag begins with -> the key of [Container]
_KEYS = {
    "seccomp=": "SeccompProfile", "mask=": "Mask", "unmask=": "Unmask", "apparmor=": "AppArmor",
    "label=type:": "SecurityLabelType", "label=level:": "SecurityLabelLevel",
    "label=filetype:": "SecurityLabelFileType",
}  # fmt: skip


def key_of(message: str) -> tuple[str, str]:
    """(key, the part of the flag that it stands for) of an error of `--security-opt`; else ("", "")."""
    for prefix, key in _KEYS.items():
        if message.startswith(_FLAG + prefix):
            return key, _FLAG + prefix
    return "", ""


def check(options: Iterable[str], security: Security) -> None:
    """Raises SpecError for what would not start: values of the flag, `security` is what they mean."""
    for text in options:
        if text.startswith("seccomp="):
            _check_word(text.removeprefix("seccomp="))
    if posix.geteuid():
        return  # the service may read and write what an ordinary user may not
    try:
        _check_profile(security)
    except SysboxError as error:
        value = security.seccomp
        reason = error.message.removeprefix(f"seccomp={value}: ")
        raise SpecError(f"{_FLAG}seccomp={value}: {reason}", hint=error.hint) from None
    if security.apparmor:
        from sysbox.run.apparmor import look
        from sysbox.security.apparmor import decide

        decide(security, look(probe(), security.apparmor), mounts=False)
    if security.label:
        from sysbox.run.labels import check_without

        check_without(security)


def _check_word(value: str) -> None:
    """A word without a slash is a name alone: the working directory of a service is not the caller's."""
    is_word = "/" not in value and not value.startswith(RECORD)
    if is_word and value not in profiles.WORDS and not profiles.path_of(value):
        reason, hint = profiles.nowhere(value)
        raise SpecError(f"{_FLAG}seccomp={value}: {reason}", hint=hint)


def _check_profile(security: Security) -> None:
    """Raises SysboxError for a file that cannot be read, is malformed, or cannot be written."""
    if security.recorded:
        from sysbox.run import recording

        recording.check(security.recorded.replace("$$", "$"))
    elif security.seccomp not in ("default", "unconfined"):
        from sysbox.security import seccomp

        seccomp.unknown_calls(security.replace(seccomp=security.seccomp.replace("$$", "$")))
