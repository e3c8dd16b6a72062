"""Attacks run where host tests do, and share what those share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "host"))

from lane import *  # noqa: F403 (its fixtures and hooks too)
