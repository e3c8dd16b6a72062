"""Verbs and flags that docker has and this version lacks: each has a hint, not a wrong suggestion."""

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

_IN_SCOPE = "`--property` sets any property of systemd.resource-control(5)"
_RUN = {
    "--gpus": "`--device` gives it a device",
    "--link-local-ip": "",
    "--volumes-from": "`-v NAME:/PATH` attaches the same volume", "--volume-driver": "the driver is `local`",
    "--storage-opt": "", "--runtime": "", "--isolation": "", "--use-api-socket": "",
    "--disable-content-trust": "", "--cpu-rt-period": _IN_SCOPE, "--cpu-rt-runtime": _IN_SCOPE,
    "--cpu-count": "`--cpus` limits CPU time", "--cpu-percent": "`--cpus` limits CPU time",
    "--io-maxbandwidth": "", "--io-maxiops": "",
}  # fmt: skip
_PLATFORM = "`--platform` says for which machine"
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
FLAGS = {
    "build": _BUILD,
    "image build": _BUILD,
    "builder build": _BUILD,
    "run": _RUN,
    "create": _RUN,
    "volume create": {"--name": "the name is an argument"},
    "network create": {
        "--attachable": "every container can be connected",
        "--aux-address": "`--ip-range` keeps addresses free",
        "--config-from": "",
        "--config-only": "",
        "--ingress": "",
        "--ipam-driver": "",
        "--ipam-opt": "",
        "--scope": "every network is local",
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
}
