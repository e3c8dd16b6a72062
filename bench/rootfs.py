"""The root file system that every contestant runs: a static busybox with its applets, and a few files."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")
DIRECTORIES = "bin dev etc proc root run sys tmp usr usr/bin var".split()
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/os-release": 'ID=busybox\nPRETTY_NAME="busybox"\n',
}


def make(tree: Path, archive: Path) -> None:
    """Fill the new directory `tree`, and pack it into the tar archive `archive`."""
    for directory in DIRECTORIES:
        (tree / directory).mkdir(parents=True)
    for name, text in FILES.items():
        (tree / name).write_text(text)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for applet in set(listed.stdout.split()) - {"busybox"}:
        (tree / "bin" / applet).symlink_to("busybox")
    with tarfile.open(archive, "w") as written:
        written.add(tree, ".")
