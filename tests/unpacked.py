"""Where tools/setup.sh unpacks programs for the tests that are not installed on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "test-services"
PATH = ":".join(
    [*(str(UNPACKED / one) for one in ("usr/bin", "usr/sbin")), "/usr/sbin:/usr/bin:/sbin:/bin"]
)
_TRIPLET = f"{os.uname().machine}-linux-gnu"
# $LD_LIBRARY_PATH for these programs: a library that the machine has is not necessarily there
LIBRARIES = f"{UNPACKED}/usr/lib/{_TRIPLET}:{UNPACKED}/lib/{_TRIPLET}"
