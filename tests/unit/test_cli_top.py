"""The names of users that `top` shows, from any file that an image may have at /etc/passwd."""

from __future__ import annotations

from sysbox.cli.commands import top


def test_names() -> None:
    lines = [
        "root:x:0:0:root:/root:/bin/sh", "toor:x:0:0::/:", "user:x:1000:1000::/:", "long" * 20 + ":x:2:2::/:",
        "", ":::", "two words:x:3:3::/:", ":x:4:4::/:", "many:x:" + "9" * 5000 + ":0::/:", "digit:x:²:0::/:",
        "minus:x:-1:0::/:", "short:x:7", "break\u2028er:x:8:8::/:",
    ]  # fmt: skip
    assert top._users("\n".join(lines)) == {0: "root", 1000: "user", 2: ("long" * 20)[:32]}
