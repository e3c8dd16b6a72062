"""The generator as a process: what it opens, and that broken files do not end it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked import needs_root

SYSBOX = Path(sys.prefix) / "bin/sysbox"
# in a mount namespace of its own: the files of this machine count for nothing
SCRIPT = """set -e
for place in /etc/sysbox /usr/share/sysbox /etc/containers /usr/share/containers; do
    if test -d $place; then mount -t tmpfs none $place; fi
done
mount -t tmpfs none /run
if test -e /dev/kmsg; then mount --bind "$5" /dev/kmsg; fi
mkdir -p /run/containers/systemd
cp "$1"/* /run/containers/systemd
exec strace -f -qq -e trace=%network,%file -o "$2" "$3" _generate "$4" "$4" "$4"
"""


def test_it_opens_no_socket_and_nothing_of_the_store(requires: Any, tmp_path: Path) -> None:
    needs_root()
    requires.program("strace")
    declared, out, trace = tmp_path / "declared", tmp_path / "out", tmp_path / "trace"
    declared.mkdir()
    out.mkdir()
    log = tmp_path / "kmsg"
    log.touch()
    (declared / "web.container").write_text(
        "[Container]\nImage=base.image\nVolume=data.volume:/d\n[Install]\nWantedBy=a.target\n"
    )
    (declared / "base.image").write_text("[Image]\nImage=x\n")
    (declared / "data.volume").write_text("[Volume]\nUser=root\n")
    (declared / "bad.container").write_bytes(bytes(range(256)))
    words = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", declared, trace, SYSBOX, out, log]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(one.name for one in out.glob("*.service")) == [
        "bad.service", "base-image.service", "data-volume.service", "web.service",
    ]  # fmt: skip
    assert "bad.container:" in done.stderr
    # its standard error is nobody's at a daemon-reload
    if Path("/dev/kmsg").exists():
        said = r"<4>sysbox-generator\[\d+\]: \S+/bad\.container:2: the line "
        assert re.match(said, log.read_text())
    lines = trace.read_text().splitlines()
    assert any("/run/containers/systemd/web.container" in line for line in lines)
    for word in ("socket(", "connect(", "/var/lib/sysbox", "passwd", "nsswitch"):
        assert [line for line in lines if word in line] == []
