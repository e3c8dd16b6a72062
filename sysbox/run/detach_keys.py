"""The key sequence that detaches a terminal from a container: `ctrl-p,ctrl-q` unless another is chosen."""

from __future__ import annotations

from sysbox.base.errors import SpecError

DEFAULT = "ctrl-p,ctrl-q"

_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse(text: str, flag: str) -> bytes:
    """`ctrl-p,ctrl-q`: single characters, or ctrl- and a letter or one of @[\\]^_. Raises SpecError."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-") if len(key) > 1 else ""
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(name) == 1 and name in _CONTROL:
            keys.append(_CONTROL.index(name))
        else:
            raise SpecError(
                f"{flag} {text!r}: {key!r} is not a key", hint="as in ctrl-p,ctrl-q or a,b"
            )
    return bytes(keys)


class Finder:
    """Finds the key sequence in typed input; what may be its beginning is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(the input to pass on, whether the keys were pressed)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._held]
            self._held = int(byte == self._keys[0])
            if not self._held:
                passed.append(byte)
            elif len(self._keys) == 1:
                return bytes(passed), True
        return bytes(passed), False
