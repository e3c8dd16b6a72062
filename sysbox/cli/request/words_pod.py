"""What the specification of a container in a pod has of the pod, taken away again. Pure."""

from __future__ import annotations

from sysbox.base.paths import RUN_PODS
from sysbox.spec import ContainerSpec, Namespaces

_SLICE = ContainerSpec(image="x").slice


def without_pod(spec: ContainerSpec) -> ContainerSpec:
    """Without what its pod has decided: it does so again."""
    asked, usual = spec.namespaces, Namespaces()
    changes = {
        kind: getattr(usual, kind)
        for kind in ("network", "ipc", "uts", "user")
        if kind == "user" or getattr(asked, kind).startswith(f"ns:{RUN_PODS}/")
    }
    return spec.replace(slice=_SLICE, namespaces=asked.replace(**changes))
