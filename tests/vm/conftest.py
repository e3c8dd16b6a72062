"""Tests that need the guest (`make test-vm`). It is a host: what serves the tests of hosts serves these."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_HOST = Path(__file__).parent.parent / "host"
sys.path.insert(0, str(_HOST))

# both files are named conftest, and only one module can be
_spec = importlib.util.spec_from_file_location("host_conftest", _HOST / "conftest.py")
assert _spec
assert _spec.loader
_host = sys.modules["host_conftest"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_host)

SLOWNESS = _host.SLOWNESS
SYSBOX = _host.SYSBOX
Sysbox = _host.Sysbox
pytest_fixture_setup = _host.pytest_fixture_setup
pytest_fixture_post_finalizer = _host.pytest_fixture_post_finalizer
containers = _host.containers
image = _host.image
no_leaks = _host.no_leaks
sysbox = _host.sysbox
