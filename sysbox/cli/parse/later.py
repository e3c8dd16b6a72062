"""Verbs and flags of docker and podman that this version lacks: each has a hint, not a wrong suggestion."""

from __future__ import annotations

NOT_YET = "is not supported yet"

# verb, or group -> what to do instead
VERBS = {
    "search": "registries have no search in common; `sysbox manifest inspect` looks at one image",
    "buildx": "`sysbox build` takes buildx's flags, `sysbox builder prune` empties the cache",
    "compose": "",
    "context": "", "plugin": "", "checkpoint": "",
    "swarm": "", "service": "", "stack": "", "node": "", "config": "",
}  # fmt: skip

_NO_YAML = "no Kubernetes YAML is read or made: `sysbox unit generate` writes unit files, see sysbox-pod(5)"
_UNPACKED = "`sysbox run --rm IMAGE COMMAND` looks into it, `sysbox save` packs it"
_FILES = "`sysbox cp` and `sysbox export` read its files; mounts are in its own namespace: `nsenter --mount`"
_OF_USERS = "only root runs containers"
# verb of podman's, after its group -> what to do instead
PODMANS = {
    "quadlet": "`sysbox unit` does that",
    "generate": "`sysbox unit generate` does that",
    "generate kube": _NO_YAML, "kube": _NO_YAML, "play": _NO_YAML,
    "healthcheck": "`sysbox inspect -f '{{json .State.Health}}' CONTAINER` has the results of its checks",
    "mount": _FILES, "container mount": _FILES, "unmount": _FILES, "container unmount": _FILES,
    "umount": _FILES, "container umount": _FILES,
    "unshare": _OF_USERS, "machine": _OF_USERS, "system migrate": _OF_USERS,
    "init": "`sysbox create` and `sysbox start`", "container init": "`sysbox create` and `sysbox start`",
    "container clone": "`sysbox unit generate CONTAINER` writes what makes another one",
    "container checkpoint": "", "container restore": "", "container runlabel": "",
    "container cleanup": "`sysbox gc` does that",
    "volume export": "`sysbox run --rm -v VOLUME:/v host tar -C /v -c . >FILE` does that",
    "volume import": "`sysbox run --rm -i -v VOLUME:/v host tar -C /v -x <FILE` does that",
    "volume mount": "`sysbox volume inspect -f '{{.Mountpoint}}' VOLUME` has its directory",
    "volume unmount": "it is a directory, which is not mounted", "volume reload": "there are no plugins",
    "image mount": _UNPACKED, "image unmount": _UNPACKED, "image diff": "`sysbox image tree` has the layers",
    "image scp": "`sysbox save IMAGE | ssh HOST sysbox load`", "image sign": "`sysbox push` signs",
    "trust inspect": "`sysbox trust show` does that",
    "system reset": "`sysbox rm -f` of each container, then `sysbox system prune -af --volumes`",
    "system check": "`sysbox doctor` looks at the host, `sysbox gc` cleans up",
    "system renumber": "there are no numbers of locks",
    "system service": "there is no API and no daemon", "system connection": "there is no API and no daemon",
}  # fmt: skip

_IN_SCOPE = "`--property` sets what systemd has a property for"
_NOT_OF_SYSTEMD = "systemd has no property for it"
_PLATFORM = "`--platform` says for which machine"
_USERS = "/etc/passwd is the image's; a uid works without an entry"
_RUN = {
    "--rootfs": "`tar -C DIRECTORY -c . | sysbox import - NAME` makes an image of a directory",
    "--tz": "`-e TZ=ZONE`, or `-v /etc/localtime:/etc/localtime:ro`",
    "--requires": "declare the container: Requires= and After= of [Unit]",
    "--timeout": "`--property RuntimeMaxSec=SECONDS`",
    "--unsetenv": "`-e NAME=` empties it", "--unsetenv-all": "`-e NAME=` empties one", "--env-merge": "",
    "--http-proxy": "`-e http_proxy` passes it on", "--read-only-tmpfs": "`--tmpfs PATH` for each directory",
    "--arch": _PLATFORM, "--os": _PLATFORM, "--variant": _PLATFORM,
    "--tls-verify": "`insecure = true` of registries.conf says it of a registry",
    "--authfile": "REGISTRY_AUTH_FILE in the environment", "--creds": "`sysbox login` first",
    "--decryption-key": "no encrypted images",
    "--no-hosts": "", "--no-hostname": "", "--hosts-file": "`--add-host` adds lines",
    "--passwd": _USERS, "--passwd-entry": _USERS, "--group-entry": _USERS, "--hostuser": _USERS,
    "--cgroups": "each container has a scope: `--slice` says where", "--cgroup-conf": _IN_SCOPE,
    "--init-path": "`--init` runs sysbox's own", "--preserve-fds": "", "--preserve-fd": "", "--rmi": "",
    "--chrootdirs": "", "--rdt-class": "", "--shm-size-systemd": "",
    "--gpus": "`--device` gives it a device",
    "--link-local-ip": "",
    "--volumes-from": "`-v NAME:/PATH` attaches the same volume", "--volume-driver": "the driver is `local`",
    "--storage-opt": "", "--runtime": "", "--isolation": "", "--use-api-socket": "",
    "--disable-content-trust": "", "--cpu-rt-period": _NOT_OF_SYSTEMD, "--cpu-rt-runtime": _NOT_OF_SYSTEMD,
    "--cpu-count": "`--cpus` limits CPU time", "--cpu-percent": "`--cpus` limits CPU time",
    "--io-maxbandwidth": "", "--io-maxiops": "",
}  # fmt: skip
_CHECKED = "what is wrong with the file is said before anything is done"
_ONE = "no index of several platforms is made"
_BUILD = {
    "--cache-to": "the cache is this host's own, and stays there: leave it out", "--cache-ttl": "",
    "--attest": "no attestations are made: leave it out", "--sign-by": "`sysbox push` signs",
    "--no-cache-filter": "`--no-cache` takes no step from the cache",
    "--call": _CHECKED, "--check": _CHECKED, "--print": "", "--manifest": _ONE, "--all-platforms": _ONE,
    "--arch": _PLATFORM, "--os": _PLATFORM, "--variant": _PLATFORM, "--os-version": _PLATFORM,
    "--timestamp": "SOURCE_DATE_EPOCH in the environment, in seconds",
    "--jobs": "stages run side by side, one more than there are CPUs",
    "--cgroup-parent": "steps are in sysbox-build.slice: `systemctl set-property` limits it",
    "--isolation": "each step is a container as of `sysbox run`", "--runtime": "", "--device": "",
    "--stdin": "", "--logfile": "standard error has it", "--omit-history": "", "--http-proxy": "",
}  # fmt: skip
_LAST = "`sysbox ps -lq` prints it"


def _all(verb: str, which: str) -> dict[str, str]:
    """podman's --all and --latest, which docker does not have."""
    every = f"`sysbox {verb} $(sysbox ps {which})`"
    return {"-a": every, "--all": every, "-l": _LAST, "--latest": _LAST}


FLAGS = {
    "stop": _all("stop", "-q"), "kill": _all("kill", "-q"), "restart": _all("restart", "-q"),
    "rm": _all("rm", "-aq"), "pause": _all("pause", "-q"), "unpause": _all("unpause", "-q"),
    "logs": {"-l": _LAST, "--latest": _LAST, "--names": "`sysbox logs` shows one container", "--color": ""},
    "inspect": {"-l": _LAST, "--latest": _LAST}, "wait": {"-l": _LAST, "--latest": _LAST},
    "exec": {"-l": _LAST, "--latest": _LAST}, "top": {"-l": _LAST, "--latest": _LAST},
    "attach": {"-l": _LAST, "--latest": _LAST},
    "start": {"--all": "`sysbox start $(sysbox ps -aq)`", "-l": _LAST, "--latest": _LAST},
    "build": _BUILD,
    "image build": _BUILD,
    "builder build": _BUILD,
    "run": _RUN,
    "create": _RUN,
    "volume create": {"--name": "the name is an argument"},
    "network create": {
        "--aux-address": "`--ip-range` keeps addresses free",
        "--config-from": "",
        "--config-only": "",
        "--ingress": "",
        "--ipam-opt": "",
    },
    "images": {"--tree": ""},
    "secret create": {
        "-d": "systemd-creds(1) encrypts them",
        "--driver": "systemd-creds(1) encrypts them",
        "--driver-opts": "systemd-creds(1) encrypts them",
        "--template-driver": "",
    },
    "secret inspect": {
        "--showsecret": "`sysbox run --rm --secret NAME host cat /run/secrets/NAME`"
    },
    "import": {"--platform": "images are for this machine"},
}  # fmt: skip
