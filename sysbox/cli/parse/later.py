"""Verbs and flags that docker has and this version lacks: each has a hint, not a wrong suggestion."""

from __future__ import annotations

NOT_YET = "is not supported yet"

_BUILD = "`sysbox commit` makes an image of a container, `sysbox import` one of an archive"

# verb, or group -> what to do instead
VERBS = {
    "search": "registries have no search in common; `sysbox manifest inspect` looks at one image",
    "build": _BUILD, "builder": _BUILD, "buildx": _BUILD, "image build": _BUILD,
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
FLAGS = {
    "run": _RUN,
    "create": _RUN,
    "volume create": {"-o": "", "--opt": "", "--name": "the name is an argument"},
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
