"""Keys that people write from habit, and what to write: keys of systemd's sections, words of other tools."""

from __future__ import annotations

from sysbox.base.suggest import did_you_mean, suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# keys of systemd.unit(5), systemd.service(5) that stand in another section
_SECTIONS = {
    "Unit": """After Before BindsTo Conflicts Description Documentation OnFailure OnSuccess PartOf Requires
        RequiresMountsFor Requisite StartLimitBurst StartLimitIntervalSec Upholds Wants""",
    "Service": """ExecReload ExecStartPost ExecStartPre ExecStop ExecStopPost KillMode LoadCredential Nice
        OOMPolicy RemainAfterExit Restart RestartForceExitStatus RestartPreventExitStatus RestartSec
        SetCredential SuccessExitStatus TimeoutSec TimeoutStartSec TimeoutStopSec Type WatchdogSec""",
    "Install": "Alias Also DefaultInstance RequiredBy UpheldBy WantedBy",
}
OF_SYSTEMD = {key: section for section, keys in _SECTIONS.items() for key in keys.split()}
# a word of docker's, in lower case -> what to write
_MEANT = {
    "bind": "Volume=", "binds": "Volume=", "capadd": "AddCapability=", "capdrop": "DropCapability=",
    "cmd": "Exec=", "command": "Exec=", "cpus": "CPUQuota=, as in 150%", "cwd": "WorkingDir=",
    "device": "AddDevice=", "devices": "AddDevice=", "dependson": "Requires= and After= of [Unit]",
    "env": "Environment=", "envfile": "EnvironmentFile=", "execstart": "Exec=",
    "expose": "ExposeHostPort=", "extrahosts": "AddHost=", "healthcheck": "HealthCmd=",
    "init": "RunInit=", "links": "Network= of one .network file", "name": "ContainerName=",
    "networkmode": "Network=", "port": "PublishPort=", "ports": "PublishPort=",
    "privileged": "PodmanArgs=--privileged", "publish": "PublishPort=", "uid": "User=",
    "gid": "Group=", "workdir": "WorkingDir=", "workingdirectory": "WorkingDir=",
    "tty": "PodmanArgs=--tty", "memorylimit": "Memory=",
    "securityopt": "SeccompProfile=, AppArmor=, Mask= or PodmanArgs=--security-opt=…",
    "seccomp": "SeccompProfile=", "systemcallfilter": "SeccompProfile=",
    "apparmorprofile": "AppArmor=", "nonewprivs": "NoNewPrivileges=", "systempaths": "Unmask=ALL",
    "maskedpaths": "Mask= for more paths, Unmask= for fewer", "readonlypaths": "Unmask= for fewer paths",
    "selinuxcontext": "SecurityLabelType=",
    "landlock": "PodmanArgs=--security-opt=landlock=on",
}  # fmt: skip

# a flag of podman's, in PodmanArgs= -> what to write
_FLAGS = {
    "--arch": "--platform=linux/ARCH", "--authfile": "AuthFile= of an .image file",
    "--creds": "Creds= of an .image file", "--gpus": "AddDevice= of each device",
    "--http-proxy": "HttpProxy=",
    "--log-level": "nothing: `journalctl -u` has what there is", "--os": "--platform=OS/ARCH",
    "--read-only-tmpfs": "ReadOnlyTmpfs=", "--requires": "Requires= and After= of [Unit]",
    "--timeout": "RuntimeMaxSec= of [Service]", "--tls-verify": "TLSVerify= of an .image file",
    "--tz": "Timezone=", "--unsetenv": "Environment= of the name with an empty value",
    "--volumes-from": "Volume= of the same .volume files",
}  # fmt: skip


def flag_hint(flag: str, known: Iterable[str]) -> str:
    """What to write in place of a flag in PodmanArgs= that sysbox does not have; `known` are those it has."""
    return f"write {_FLAGS[flag]}" if flag in _FLAGS else did_you_mean(flag, known)


def hint(key: str, known: Iterable[str], section: str) -> str:
    """What to write in place of a key that `section` does not have; `known` are those that it has."""
    if key in OF_SYSTEMD:
        return f"it belongs to [{OF_SYSTEMD[key]}]"
    meant = _MEANT.get(key.lower().replace("_", "").replace("-", ""), "")
    fits = section == "Container" or meant.partition("=")[0] in known
    return f"write {meant}" if meant and fits else suggest(key, known)
