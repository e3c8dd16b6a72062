"""Fuzzing of all that parses: each property says what holds for any input.

Short, and the same each time; SYSBOX_FUZZ=N tries N examples of each, others each time (`make soak`). What
failed is printed with what repeats it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# `written`, which the unit tests share
sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
EXAMPLES = int(os.environ.get("SYSBOX_FUZZ", "0"))

settings.register_profile(
    "short",
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long",
    max_examples=EXAMPLES or 1,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("long" if EXAMPLES else "short")
