"""Where sysbox keeps things: persistent state, volatile state, cache; and where its configuration is.

Persistent: images, records of containers, their writable layers. Volatile (a tmpfs, gone at boot with
the containers themselves): pids, leases, locks. The variables exist for tests and for trying sysbox
out beside an installed one.
"""

from __future__ import annotations

import posix

_environ = posix.environ


def _directory(variable: bytes, default: str) -> str:
    return _environ.get(variable, b"").decode("utf-8", "surrogateescape") or default


STATE = _directory(b"SYSBOX_STATE_DIR", "/var/lib/sysbox")
RUN = _directory(b"SYSBOX_RUN_DIR", "/run/sysbox")
# where sysbox.conf and sysbox.conf.d/ may be: a distribution's, and an administrator's, which goes before
CONFIGURATION = (
    _directory(b"SYSBOX_SHARE_DIR", "/usr/share/sysbox"),
    _directory(b"SYSBOX_ETC_DIR", "/etc/sysbox"),
)

CONTAINERS = f"{STATE}/containers"  # <id>/record.json, exit.json, hosts, hostname, resolv.conf, upper/, work/
NAMES = f"{STATE}/names"  # <name> -> <id>: a symbolic link, so that claiming a name is atomic
IMAGES = f"{STATE}/images"  # OCI layout: oci-layout, index.json, blobs/sha256/; and layers/
VOLUMES = f"{STATE}/volumes"  # <name>/_data
EVENT_KEY = f"{STATE}/events.key"  # signs events: see units/signature.py
CACHE = f"{STATE}/cache"  # compiled seccomp programs
RUN_CONTAINERS = f"{RUN}/containers"  # <id>/state.json, exit, lock
NETWORK = f"{RUN}/network"  # leases, locks, marks of rules that are in place
PACKAGE = __file__.rpartition("/")[0].rpartition("/")[0]
LIBEXEC = f"{PACKAGE}/libexec"  # the static monitor and init
