"""Read what SELinux's policy says of containers: selinux_config(5), selinux_lxc_contexts_path(3)."""

from __future__ import annotations

from sysbox.host import read_text
from sysbox.linux import lsm
from sysbox.security import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.security.labels import Contexts

# of container-selinux; podman reads it first too
CONTAINERS = "/usr/share/containers/selinux/contexts"
DIRECTORY = "/etc/selinux"
_TYPE = "SELINUXTYPE"


def read() -> Contexts:
    """The labels that the policy gives to containers, or those of container-selinux where it names none."""
    if text := read_text(CONTAINERS):
        return labels.parse_contexts(text)
    name = ""
    for line in read_text(f"{DIRECTORY}/config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == _TYPE:
            name = value.strip()
    if not name or "/" in name or name[0] == ".":
        return labels.Contexts()
    return labels.parse_contexts(read_text(f"{DIRECTORY}/{name}/contexts/lxc_contexts"))


def of_layers() -> str:
    """The label of the files of layers on disk; "" without SELinux, and where its policy has none for them.

    A container sees them with the label of its root; but for what it maps and executes the kernel asks for
    that of the file below too (selinux_file_mprotect() of its source).
    """
    if not lsm.has_selinux():
        return ""
    label = read().ro_file
    return label if lsm.is_known(label) else ""


def label_layer(root: int) -> None:
    """Label the empty directory of a layer, an open one: what is made in it inherits that.

    Raises KernelError.
    """
    if label := of_layers():
        lsm.set_file_label(root, label)
