"""Paths of sysbox: persistent state, volatile state, cache, configuration.

Persistent: images, records of containers, their writable layers. Volatile (on a tmpfs, lost at shutdown
like the running containers): pids, leases, locks. The environment variables are for tests, and for
trying a second sysbox beside an installed one.
"""

from __future__ import annotations

import posix

_environ = posix.environ


def _directory(variable: bytes, default: str) -> str:
    return _environ.get(variable, b"").decode("utf-8", "surrogateescape") or default


STATE = _directory(b"SYSBOX_STATE_DIR", "/var/lib/sysbox")
RUN = _directory(b"SYSBOX_RUN_DIR", "/run/sysbox")
# where sysbox.conf and sysbox.conf.d/ are: the distribution's, then the administrator's, which override
CONFIGURATION = (
    _directory(b"SYSBOX_SHARE_DIR", "/usr/share/sysbox"),
    _directory(b"SYSBOX_ETC_DIR", "/etc/sysbox"),
)
# which images this machine accepts, and where their signatures are; other tools read these files too
POLICY = _directory(b"CONTAINERS_POLICY", "/etc/containers/policy.json")
REGISTRIES_D = _directory(b"CONTAINERS_REGISTRIES_D", "/etc/containers/registries.d")

CONTAINERS = f"{STATE}/containers"  # <id>/record.json, exit.json, hosts, hostname, resolv.conf, upper/, work/
NAMES = f"{STATE}/names"  # <name> -> <id>: a symbolic link, so that claiming a name is atomic
IMAGES = f"{STATE}/images"  # OCI layout: oci-layout, index.json, blobs/sha256/; and layers/
VOLUMES = f"{STATE}/volumes"  # <name>/_data
SECRETS = f"{STATE}/secrets"  # NAME.json: values for containers, encrypted where the host can
NETWORKS = f"{STATE}/networks"  # NAME.json: the definitions of networks
PODS = f"{STATE}/pods"  # NAME/pod.json, NAME/members/<id>; .ids/<id> -> NAME
EVENT_KEY = f"{STATE}/events.key"  # signs events: see units/signature.py
LEVELS = f"{STATE}/levels"  # the categories of SELinux that containers have; only on hosts with it
CACHE = f"{STATE}/cache"  # compiled seccomp programs
RUN_CONTAINERS = f"{RUN}/containers"  # <id>/state.json, exit, removal
RUN_PODS = f"{RUN}/pods"  # NAME/: the namespaces of a pod, its hosts and resolv.conf, state.json
NETWORK = f"{RUN}/network"  # leases, locks, marks of installed rules
PACKAGE = __file__.rpartition("/")[0].rpartition("/")[0]
LIBEXEC = f"{PACKAGE}/libexec"  # the static monitor and init
