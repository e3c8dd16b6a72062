"""The SELinux labels of a container: decided when it is made, with a leased level, and kept in its record."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.container import lease_files, levels, store, systemd_mode
from sysbox.fs import labelled, policy_contexts, relabel
from sysbox.host import probe
from sysbox.linux import lsm
from sysbox.security import labels
from sysbox.security.labels import Labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.pods import Pod
    from sysbox.container.store import Record
    from sysbox.security.labels import Contexts
    from sysbox.spec import ContainerSpec, Security

_MODULE = (
    "install a policy for containers (container-selinux, or `make install-selinux`), "
    "or use --security-opt label=disable"
)
_USUAL = "container_t"
_FITTING = f"{_USUAL}, or a type with the rules of one (attribute container_domain)"
# part of a label that the policy may lack -> an example
_EXAMPLES = {
    "type": "a type of processes, such as container_t; `seinfo -t` lists all types",
    "filetype": "a type of files, such as container_file_t; `seinfo -t` lists all types",
    "level": "such as s0, or s0:c1,c2 with categories up to c1023",
}


def leased(record: Record) -> lease_files.Leased:
    """A context for the making of a container: its record has its labels, and its level is leased.

    Raises as `decided`.
    """
    return lease_files.Leased(levels.DIRECTORY, lambda: decided(record))


def decided(record: Record, *, lease: bool = True) -> Record:
    """The record with its labels; with `lease`, the level is the container's from now on.

    Raises SpecError for a label that the loaded policy does not have, and where one is asked for and SELinux
    is off; Conflict, NotFound, KernelError.
    """
    spec = record.spec
    if not probe().selinux:
        check_without(spec.security)
        return record
    relabel.check(spec.mounts)
    contexts = policy_contexts.read()
    other = _shared(spec)
    init = _init_type(record, contexts)

    def decide(level: str) -> Labels:
        return labels.decide(
            spec, contexts, level, init_type=init, other=other.process_label if other else ""
        )

    # any level will do to find a type that the policy lacks, before one is leased
    _settled(decide(labels.level_with(contexts.file, (0, 1))), record, contexts)
    asked = labels.pair_of(labels.chosen(spec.security.label).get("level", ""))
    share = _pod_id(spec) or (other.id if other and not spec.security.label else "")
    if lease:
        pair = levels.acquire(record.id, share, asked)
    else:
        pair = asked or levels.preview(record.id, share)
    found = _settled(decide(labels.level_with(contexts.file, pair)), record, contexts)
    return record.replace(process_label=found.process, mount_label=found.mount)


def current(record: Record) -> Record:
    """The record of a container that is about to start, with labels where it was made without SELinux.

    The caller holds its lock. Raises as `decided`.
    """
    if not probe().selinux or record.mount_label:
        check_without(record.spec.security)
        return record
    with levels.hold():
        record = decided(record)
    store.save(record)
    return record


def of_pod(pod: Pod) -> tuple[tuple[str, str], ...]:
    """The mount option of what a pod's containers share; its level is leased if it has none yet.

    Raises Conflict, KernelError.
    """
    contexts = policy_contexts.read()
    with levels.hold():
        level = labels.level_with(contexts.file, levels.acquire(pod.id))
    label = labels.with_parts(contexts.file, {"level": level})
    return (labelled.option(label),) if lsm.is_known(label) else ()


def check_without(security: Security) -> None:
    """Raise SpecError for a label that is asked for where SELinux is off."""
    if probe().selinux:
        return
    for option in security.label:
        if option not in labels.HARMLESS:
            raise SpecError(
                f"--security-opt label={option}: SELinux is not enabled on this host",
                hint="leave it out, or boot with SELinux: `sysbox doctor` lists the security modules",
            )


def restore(record: Record) -> bool:
    """Write the lease of a container's level where it was lost; whether it was. Raises KernelError."""
    pair = labels.pair_of(labels.level_of(record.mount_label))
    return pair is not None and levels.restore(record.id, pair)


def _settled(found: Labels, record: Record, contexts: Contexts) -> Labels:
    """The labels, if the loaded policy has them and starts containers with them. Raises SpecError."""
    spec = record.spec
    if labels.is_disabled(spec):
        # of what is not there, nothing is needed for a container that nothing confines
        parts = {"process": found.process, "mount": found.mount}
        return Labels(**{name: text if lsm.is_known(text) else "" for name, text in parts.items()})
    for text in (found.process, found.mount):
        if len(text) > labels.MOST or not lsm.is_known(text):
            raise _unknown(text, spec, contexts)
    _check_pipes(found.process, labels.chosen(spec.security.label).get("type", ""))
    _check_start(found, record)
    return found


def _check_pipes(process: str, asked: str) -> None:
    """Raise SpecError where the policy would close a container's streams, which are pipes of this process.

    Of a supervisor that systemd starts they may be of another label: that has its own transition. `asked` is
    the type that was asked for, or "".
    """
    own = lsm.own_label()
    if lsm.is_enforcing() and own and not lsm.allows(process, own, "fifo_file", "write"):
        if asked and lsm.allows(
            labels.with_parts(process, {"type": _USUAL}), own, "fifo_file", "write"
        ):
            raise SpecError(
                f"--security-opt label=type:{asked}: SELinux would close the output of the container: "
                "its policy has no rule for this type to write to sysbox's pipes",
                hint=_FITTING,
            )
        raise SpecError(
            f"SELinux would close the output of containers: its policy does not know sysbox ({own})",
            hint="`make install-selinux` installs its module, or use --security-opt label=disable",
        )


def _check_start(found: Labels, record: Record) -> None:
    """Raise SpecError for a type that was asked for and with which SELinux would refuse the first execve(2).

    What it asks of a process that gets another label: whether its caller may start it, and whether the
    program's label may be its first.
    """
    asked = labels.chosen(record.spec.security.label)
    own = lsm.own_label()
    if not own or not {"type", "filetype"} & asked.keys() or not lsm.is_enforcing():
        return
    if "type" in asked and not lsm.allows(own, found.process, "process", "transition"):
        caller = labels.type_of(own)
        raise SpecError(
            f"--security-opt label=type:{asked['type']}: SELinux lets {caller} start no process of it",
            hint=_FITTING,
        )
    if _starts_from_root(record) and not lsm.allows(
        found.process, found.mount, "file", "entrypoint"
    ):
        key = "filetype" if "filetype" in asked else "type"
        kind, of_files = labels.type_of(found.process), labels.type_of(found.mount)
        raise SpecError(
            f"--security-opt label={key}:{asked[key]}: SELinux lets no process of {kind} start "
            f"from files of {of_files}",
            hint="container_t and container_file_t, which are the defaults, fit together",
        )


def _starts_from_root(record: Record) -> bool:
    """Whether its first program is a file of its image, which has the label of its root.

    Another has its own: that of the host's /usr, sysbox-init, or what a volume has.
    """
    from_image = record.resolved is None or not record.resolved.usr_bind
    return from_image and not record.spec.init and not record.spec.mounts


def _unknown(text: str, spec: ContainerSpec, contexts: Contexts) -> SpecError:
    """The error for a label that the policy lacks: which part of it, and who asked for that."""
    for base in (contexts.process, contexts.file):
        if not lsm.is_known(base):
            return SpecError(
                f"SELinux cannot confine containers: its policy has no type {labels.type_of(base)}",
                hint=_MODULE,
            )
    for key, value in labels.chosen(spec.security.label).items():
        of_files = key == "filetype"
        base = contexts.file if of_files else contexts.process
        part = labels.with_parts(base, {"type" if of_files else key: value})
        if len(part) > labels.MOST or not lsm.is_known(part):
            return SpecError(
                f"--security-opt label={key}:{value}: the policy of SELinux has no label {part[:300]}",
                hint=_EXAMPLES.get(key, f"the default is that of {base}"),
            )
    return SpecError(f"the policy of SELinux has no label {text[:300]}", hint=_MODULE)


def _init_type(record: Record, contexts: Contexts) -> str:
    """The type of a container with systemd inside, where the policy has one; "" for any other."""
    if not systemd_mode.applies(record.spec, record.argv):
        return ""
    known = lsm.is_known(labels.with_parts(contexts.process, {"type": labels.INIT_TYPE}))
    return labels.INIT_TYPE if known else ""


def _pod_id(spec: ContainerSpec) -> str:
    if not spec.pod:
        return ""
    from sysbox.container import pods  # few containers are in one

    return pods.load(spec.pod).id


def _shared(spec: ContainerSpec) -> Record | None:
    """The container whose processes it shares, or their queues and memory. Raises SpecError, NotFound."""
    modes = (spec.namespaces.ipc, spec.namespaces.pid)
    named = dict.fromkeys(mode[10:] for mode in modes if mode.startswith("container:"))
    found = [store.find(one) for one in named]
    if len({one.process_label for one in found}) > 1 and not spec.security.label:
        raise SpecError(
            "--ipc and --pid: the two containers have different SELinux labels",
            hint="share both with one of them, or choose with --security-opt label=",
        )
    return found[0] if found and found[0].process_label else None
