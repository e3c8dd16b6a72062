"""What the keys mean that are not one flag of one verb: for the man pages, which are made from the tables.

The text of any other key is the help of its flag. `[Unit]`, `[Service]` and `[Install]` are systemd's.
"""

from __future__ import annotations

_EVERY = {
    "GlobalArgs": (
        "Flags before podman's verb. Those about messages are without effect; those about podman's own files "
        "and programs are refused."
    ),
    "PodmanArgs": "Flags of `{verb}` for which there is no key.",
    "ServiceName": "The name of the service, without `.service`.",
}
_CONTAINER = {
    "AddDevice": "As `--device`. With `-` before it, only where the device is there.",
    "AppArmor": "As `--security-opt apparmor=`: `unconfined`, or the name of a loaded profile.",
    "AutoUpdate": "`registry` or `local`: where sysbox-auto-update(1) looks for a newer image.",
    "CgroupsMode": "`split` or `enabled`, which are what holds: the container has a scope of its own.",
    "EnvironmentFile": (
        "As `--env-file`. A relative path is relative to this file. There is no `-` before a path."
    ),
    "Exec": "The command, instead of the image's.",
    "Group": "The group of the command; it needs User=.",
    "IdleFreeze": "Freeze the container once it had no connection for so many seconds. It needs ProxyPort=.",
    "IdleStop": "Stop the container once it had no connection for so many seconds. It needs ProxyPort=.",
    "ListenDatagram": "As ListenStream=, for datagrams; not with ProxyPort=.",
    "ListenSequentialPacket": "As ListenStream=, for sequenced packets; not with ProxyPort=.",
    "ListenStream": (
        "A socket that systemd opens (systemd.socket(5)): the container starts with the first connection, "
        "and its payload gets the socket, or ProxyPort= the connections. [Install] is the socket's."
    ),
    "ProxyPort": "The port of the container to which connections go, for a payload that takes no sockets.",
    "HttpProxy": "Give the container the proxy variables of the service's environment. Off by default.",
    "Image": "The image: a name, or a `.image` or `.build` file, whose service then comes first.",
    "Mask": "As `--security-opt mask=`.",
    "Mount": "As `--mount`. A source may be a `.volume` file, or a path relative to this file.",
    "Network": "As `--network`, or a `.network` file, or a `.container` file whose network is shared.",
    "NoNewPrivileges": "As `--security-opt no-new-privileges`.",
    "Notify": "When the service is started: once the command runs (no), it is healthy (healthy), or the "
    "command says so by sd_notify(3) (yes).",
    "Pod": "The `.pod` file whose member it is.",
    "ReadOnlyTmpfs": "With ReadOnly=: a tmpfs on /run, /tmp and /var/tmp. On by default.",
    "ReloadCmd": "A command in the container that `systemctl reload` runs.",
    "ReloadSignal": "A signal that `systemctl reload` sends.",
    "RemapGid": "With RemapUsers=: a map of groups, or with keep-id the group.",
    "RemapUid": "With RemapUsers=: a map of users, or with keep-id the user.",
    "RemapUidSize": "With RemapUsers= auto or keep-id: how many ids.",
    "RemapUsers": "`manual`, `auto` or `keep-id`: an older way to write UIDMap= and UserNS=.",
    "Rootfs": "Refused: `tar -C DIRECTORY -c . | sysbox import - NAME` makes an image of a directory.",
    "SeccompProfile": "As `--security-opt seccomp=`: a name, a file (it has a slash), or `record:FILE`; "
    "a relative path is relative to this file.",
    "SecurityLabelDisable": "As `--security-opt label=disable`.",
    "SecurityLabelFileType": "As `--security-opt label=filetype:`.",
    "SecurityLabelLevel": "As `--security-opt label=level:`.",
    "SecurityLabelNested": "As `--security-opt label=nested`.",
    "SecurityLabelType": "As `--security-opt label=type:`.",
    "StartWithPod": "Whether the start of the pod starts it. On by default.",
    "Timezone": "The time zone: the variable TZ, or with `local` the host's /etc/localtime.",
    "Unmask": "As `--security-opt unmask=`.",
    "User": "The user of the command, as `--user`.",
    "VolatileTmp": "A tmpfs of 512 MiB on /tmp. Tmpfs= says more.",
    "Volume": "As `--volume`. A source may be a `.volume` file, or a path relative to this file.",
}
_VOLUME = {
    "Copy": "Fill the new volume with what the image has at its place. On by default.",
    "Device": "As `--opt device=`. A relative path is relative to this file.",
    "Driver": "`local`, the only one.",
    "GID": "The group of the new directory, as `--opt o=gid=`.",
    "Group": "As GID=, which is newer.",
    "Image": "Refused: it belongs to a driver that is not there.",
    "Options": "As `--opt o=`.",
    "Type": "As `--opt type=`.",
    "UID": "The user of the new directory, as `--opt o=uid=`.",
    "User": "As UID=, which is newer.",
    "VolumeName": "The volume's name; `systemd-NAME` by default.",
}
_NETWORK = {
    "NetworkDeleteOnStop": "Remove the network when its service stops.",
    "NetworkName": "The network's name; `systemd-NAME` by default.",
}
_IMAGE = {
    "Image": "The image to pull.",
    "ImageTag": "The name that containers use, where Image= has another.",
}
_BUILD = {
    "Arch": "The architecture to build for.",
    "Network": "As `--network`, or a `.network` file.",
    "SetWorkingDirectory": (
        "Where the build runs: `unit` (the directory of this file) or `file` (that of File=); or the "
        "context, as a path or a URL."
    ),
    "Variant": "The variant of Arch=.",
    "Volume": "As `--volume`. A relative path is relative to this file.",
}
_POD = {
    "ExitPolicy": (
        "`stop`: the service stops once the last container has ended, and systemd does not start one again; "
        "or `continue`. `stop` by default."
    ),
    "Network": "As `--network`, or a `.network` file.",
    "PodName": "The pod's name; `systemd-NAME` by default.",
    "RemapGid": _CONTAINER["RemapGid"],
    "RemapUid": _CONTAINER["RemapUid"],
    "RemapUidSize": _CONTAINER["RemapUidSize"],
    "RemapUsers": _CONTAINER["RemapUsers"],
    "StopTimeout": "The seconds that each container has to stop; its own by default.",
    "Volume": "As `--volume`, in each container. A source may be a `.volume` file, or a relative path.",
}
# section -> key -> text
HELP: dict[str, dict[str, str]] = {
    "Container": {**_EVERY, **_CONTAINER},
    "Volume": {**_EVERY, **_VOLUME},
    "Network": {**_EVERY, **_NETWORK},
    "Image": {**_EVERY, **_IMAGE},
    "Build": {**_EVERY, **_BUILD},
    "Pod": {**_EVERY, **_POD},
}
# section -> the verb whose flags its keys are
VERB = {
    "Container": "run",
    "Volume": "volume create",
    "Network": "network create",
    "Image": "pull",
    "Build": "build",
    "Pod": "pod create",
}
