"""From the flags of `pod create` to what is asked of a pod."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.cli.parse import hot
from sysbox.cli.request import spec
from sysbox.cli.table.options import Values
from sysbox.cli.table.verbs import VERBS
from sysbox.container.pods import SHARED
from sysbox.lifecycle.pod import Wish
from sysbox.parse.common import bad

# podman's words for kinds of namespaces; there is no process whose pid namespace could be shared
_KINDS = {"net": "network", "ipc": "ipc", "uts": "uts"}
_NOT = ("pid", "cgroup", "mnt", "user")


def build(given: Values) -> Wish:
    """What is asked for. Raises SpecError."""
    if given.name and given.pod_name and given.name != given.pod_name:
        raise SpecError(f"--name {given.name} and {given.pod_name}: give one of them")
    # the parsers of `create`, for the flags that it has too
    merged = {**vars(hot.parse(VERBS["create"], ["pod"])), **vars(given)}
    merged["name"] = given.name or given.pod_name
    asked = spec.build(
        Values(VERBS["create"], {key: merged[key] for key in merged if key != "verb"})
    )
    if given.exit_policy not in (None, "continue", "stop"):
        bad("--exit-policy", given.exit_policy, "unknown policy", "continue or stop")
    return Wish(
        spec=asked.replace(image=""),
        share=_share(given.share),
        exit_policy=given.exit_policy or "continue",
        anew=given.replace,
    )


def _share(text: str | None) -> tuple[str, ...]:
    if text is None:
        return SHARED
    if text in ("", "none"):
        return ()
    found = []
    for word in text.split(","):
        if word in _NOT:
            hint = "net, ipc and uts; --userns is about users, `run --pid container:NAME` about processes"
            bad("--share", word, "containers of a pod do not share it", hint)
        if word not in _KINDS:
            bad("--share", word, "unknown kind of namespace", "net, ipc, uts, or none")
        found.append(_KINDS[word])
    return tuple(kind for kind in SHARED if kind in found)
