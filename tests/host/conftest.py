"""Host tests run on a booted systemd (`tools/test-host.sh`); what they share is in lane.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from lane import *  # noqa: F403 (its fixtures and hooks too)
