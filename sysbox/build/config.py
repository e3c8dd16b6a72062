"""The instructions that change only the image's configuration, and the steps of its history."""

from __future__ import annotations

import time

from sysbox.base.errors import SpecError
from sysbox.build import expansion, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.build.model import Instruction, Plan
    from sysbox.build.state import State


_SAID = 4096  # characters of an instruction in the history, where variables make it longer


def apply(state: State, one: Instruction, plan: Plan) -> None:
    """Change the state by one expanded instruction. Raises SpecError."""
    handler = _HANDLERS.get(type(one).__name__)
    if handler is None:
        raise SpecError(f"{one.text.partition(' ')[0]}: is not known here")
    handler(state, one, plan)
    state.variables = expansion.after(state.variables, one, plan)


def _env(state: State, one: Any, _: Plan) -> None:
    state.config = state.config.replace(env=with_variables(state.config.env, one.pairs))


def with_variables(env: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Variables changed in place, new ones at the end."""
    found = dict(one.partition("=")[::2] for one in env)
    found.update(pairs)
    return tuple(f"{name}={value}" for name, value in found.items())


def _arg(_: State, _one: Any, _plan: Plan) -> None:
    """A variable is no part of the configuration."""


def _label(state: State, one: Any, _: Plan) -> None:
    state.config = state.config.replace(labels={**state.config.labels, **dict(one.pairs)})


def _user(state: State, one: Any, _: Plan) -> None:
    state.config = state.config.replace(user=one.user)


def _expose(state: State, one: Any, _: Plan) -> None:
    ports = tuple(sorted({*state.config.exposed_ports, *one.ports}))
    state.config = state.config.replace(exposed_ports=ports)


def _volume(state: State, one: Any, _: Plan) -> None:
    state.config = state.config.replace(volumes=tuple(sorted({*state.config.volumes, *one.paths})))


def _entrypoint(state: State, one: Any, _: Plan) -> None:
    cmd = state.config.cmd if state.own_cmd else ()
    state.config = state.config.replace(entrypoint=_command(state, one), cmd=cmd)


def _cmd(state: State, one: Any, _: Plan) -> None:
    state.own_cmd = True
    state.config = state.config.replace(cmd=_command(state, one))


def _command(state: State, one: Any) -> tuple[str, ...]:
    return (*state.shell, *one.command) if one.shell and one.command else one.command


def _shell(state: State, one: Any, _: Plan) -> None:
    state.shell = one.command
    state.extra = {**state.extra, "Shell": list(one.command)}


def _healthcheck(state: State, one: Any, _: Plan) -> None:
    health = one.health
    if health.disabled:
        document: dict[str, Any] = {"Test": ["NONE"]}
        words: tuple[str, ...] = ()
    else:
        document = {"Test": list(one.command)}
        kind, *rest = one.command
        words = tuple(rest) if kind == "CMD" else (*state.shell, *rest)
        times = {
            "Interval": health.interval,
            "Timeout": health.timeout,
            "StartPeriod": health.start_period,
            "StartInterval": health.start_interval,
        }
        document |= {key: value * 1000 for key, value in times.items() if value > 0}
        if health.retries > 0:
            document["Retries"] = health.retries
    state.config = state.config.replace(health=health.replace(command=words))
    state.extra = {**state.extra, "Healthcheck": document}


def _stopsignal(state: State, one: Any, _: Plan) -> None:
    state.config = state.config.replace(stop_signal=one.signal)


def _onbuild(state: State, one: Any, _: Plan) -> None:
    state.extra = {**state.extra, "OnBuild": [*state.extra.get("OnBuild", ()), one.trigger]}


def _maintainer(state: State, one: Any, _: Plan) -> None:
    state.author = one.name


_HANDLERS = {
    "Env": _env,
    "Arg": _arg,
    "Label": _label,
    "User": _user,
    "Expose": _expose,
    "Volume": _volume,
    "Entrypoint": _entrypoint,
    "Cmd": _cmd,
    "Shell": _shell,
    "Healthcheck": _healthcheck,
    "Stopsignal": _stopsignal,
    "Onbuild": _onbuild,
    "Maintainer": _maintainer,
}


def said(one: Instruction, state: State) -> str:
    """An expanded instruction that the state has by now, as the history has it: with the values of variables
    where BuildKit has them. One that would be very long, and one without variables, is as it was written.
    """
    words: tuple[str, ...] = ()
    if isinstance(one, model.Env | model.Label):
        words = tuple(f"{key}={value}" for key, value in one.pairs)
    elif isinstance(one, model.Workdir):
        words = (state.config.workdir,)
    elif "$" not in one.text:
        pass
    elif isinstance(one, model.User):
        words = (one.user,)
    elif isinstance(one, model.Stopsignal):
        words = (one.signal,)
    elif isinstance(one, model.Volume):
        words = one.paths
    elif isinstance(one, model.Copy) and not one.heredocs:
        flags = (("from", one.origin), ("chown", one.chown), ("chmod", one.chmod))
        given = (f"--{name}={value}" for name, value in flags if value)
        words = (*given, *one.sources, one.destination)
    text = " ".join((one.text.partition(" ")[0], *words))
    return text if words and len(text) <= _SAID else one.text


def step(text: str, moment: str, *, empty: bool) -> dict[str, Any]:
    """One step of a history (OCI config.md); `moment` as RFC 3339."""
    made: dict[str, Any] = {"created": moment, "created_by": text, "comment": "sysbox"}
    return {**made, "empty_layer": True} if empty else made


def moment_of(nanoseconds: int) -> str:
    """A time since 1970 as RFC 3339 in UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    fraction = f".{rest:09d}" if rest else ""
    return time.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}Z", time.gmtime(seconds))
