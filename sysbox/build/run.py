"""RUN: a container of its own for each step, in a scope of its own.

    worker of the stage                     supervisor, forked for this step
      makes the container's record
      fork ──────────────────────────────►  starts the container, copies its output, waits for its end
      ◄─────────────── how it ended ───────  exits
      takes the writable layer
      settles the run, which removes the container

The container is one like any other while it runs: `ps`, `logs`, `exec`, `stop` and systemctl know it. It ends
with its supervisor, and that with the worker, however these end; what then is left is removed by `gc`.
"""

from __future__ import annotations

import _signal
import posix
import socket

from sysbox.base import codec
from sysbox.base.errors import SysboxError
from sysbox.base.frozen import Frozen
from sysbox.container import identity, store
from sysbox.container.records import Ended, Resolved
from sysbox.fs.drivers.driver import driver_of
from sysbox.host import probe
from sysbox.image.crew import described, restored
from sysbox.lifecycle import create, remove
from sysbox.lifecycle.run import Notices
from sysbox.linux import _sys, process
from sysbox.run import start
from sysbox.run.exit import settle
from sysbox.run.foreground import Attended
from sysbox.spec import ContainerSpec, Mount
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysbox.build.layers import StackLayer
    from sysbox.container.store import Record
    from sysbox.plan import Plan

SLICE = "sysbox-build.slice"
_MOST = 1 << 16  # bytes of a message


class RunStep(Frozen):
    """One RUN, with everything decided."""

    name: str  # of the container
    argv: tuple[str, ...]
    env: tuple[str, ...]  # "NAME=VALUE"
    # the same, and no record and no log of sysbox may have them
    secrets: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: str = ""  # none, host; "" is as `template` says
    privileged: bool = False
    layers: tuple[StackLayer, ...] = ()
    image_id: str = ""  # of the base image
    image_name: str = ""
    usr_bind: bool = False
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)


class Failed(SysboxError):
    """A command of a RUN has failed; `container` is the name of what was left to look into, or ""."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1, container: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.container = container


def run(
    step: RunStep,
    template: ContainerSpec,
    output: int,
    take: Callable[[str, list[str]], StackLayer],
    *,
    keep_failed: bool = False,
    before_keeping: Callable[[], None] = lambda: None,
) -> StackLayer:
    """Run it; its output goes to the descriptor `output`. The layer that it has made.

    `template` has the limits and the like that every step of the build has. `take` gets the writable layer
    and the paths at which something was mounted. Raises Failed, and what the start of a container raises.
    """
    tree.expect_move(probe())
    record, plan = _create(step, template)
    ended: Ended | None = None
    try:
        ended = _supervised(record, plan, output)
        if ended.code == 0:
            return take(driver_of(record).writable(record.directory), _targets(record))
        kept = ""
        if keep_failed:
            before_keeping()
            kept = _keep(record, step)
        raise _failure(ended, kept)
    finally:
        _end(record, ended)


def _create(step: RunStep, template: ContainerSpec) -> tuple[Record, Plan]:
    spec = _spec(step, template)
    record = store.Record(
        id=identity.new_id(),
        name=step.name,
        created_ns=store.now_ns(),
        spec=spec,
        image_id=step.image_id,
        image_name=spec.image,
        argv=step.argv,
        exposed=(),
        resolved=Resolved(
            user=step.user,
            workdir=step.workdir,
            command=step.argv,
            labels=spec.labels,
            layers=tuple(one.name for one in step.layers),
            usr_bind=step.usr_bind,
        ),
    )
    record, plan = create.from_draft(record, lambda: None, Notices())
    if step.secrets:
        # in no file: the plan is not written
        environment = (*plan.process.env, *step.secrets)
        plan = plan.replace(process=plan.process.replace(env=environment))
    return record, plan


def _spec(step: RunStep, template: ContainerSpec) -> ContainerSpec:
    namespaces, security = template.namespaces, template.security
    targets = {one.target for one in step.mounts}
    if step.network:
        namespaces = namespaces.replace(network=step.network)
    return template.replace(
        image=step.image_name or "scratch",
        name=step.name,
        command=step.argv,
        entrypoint=(),
        env=step.env,
        workdir=step.workdir,
        user=step.user,
        # those of the step come last: where both mount, the Containerfile counts
        mounts=(*(one for one in template.mounts if one.target not in targets), *step.mounts),
        namespaces=namespaces,
        networks=() if step.network else template.networks,
        labels={**template.labels, **step.labels},
        security=security.replace(privileged=step.privileged or security.privileged),
        slice=SLICE,
        remove=True,
        systemd="false",
    )


def _targets(record: Record) -> list[str]:
    """Where something was mounted in the root."""
    usual = ["/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
    usr = ["/usr"] if record.resolved and record.resolved.usr_bind else []
    return [*usual, *usr, *(one.target for one in record.spec.mounts)]


def _supervised(record: Record, plan: Plan, output: int) -> Ended:
    """Have it run under a supervisor of its own; how it ended. Raises what its start raises."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = posix.getpid()
    pid = posix.fork()
    if not pid:
        ours.close()
        _supervise(record, plan, output, theirs, worker)
    theirs.close()
    try:
        with ours:
            text = ours.recv(_MOST)
    except BaseException:
        # the container ends with its supervisor (PR_SET_PDEATHSIG)
        posix.kill(pid, _signal.SIGKILL)
        raise
    finally:
        posix.waitpid(pid, 0)
    if not text:
        raise SysboxError(
            f"{record.name}: its supervisor was killed", hint="was the host out of memory?"
        )
    kind, data = codec.loads(text, "a supervisor's message")
    if kind == "error":
        raise restored(data)
    return Ended.from_data(data, "how a step ended")


class _Step(Attended):
    """The container of a step in its supervisor, which leaves it to the worker to settle the run."""

    def end(self) -> Ended:
        """Wait for its end."""
        from sysbox.units import machine

        with start.give_up_on_failure(self._record, self._started):
            machine.register_later(self._entry)
            ended = self._foreground.wait(self._started.oom, self._started.reports)
        machine.cancel_register()
        return ended


def _supervise(
    record: Record, plan: Plan, output: int, channel: socket.socket, worker: int
) -> NoReturn:
    message: tuple[str, object] = ("error", {"text": "it ended early"})
    try:
        _sys.prctl(process.PR_SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() != worker:
            posix._exit(0)
        for target in (1, 2):
            posix.dup2(output, target)
        message = ("ended", _Step(record, plan, logged=True).end().to_data())
    except BaseException as error:  # noqa: BLE001 (the worker raises it)
        message = ("error", described(error))
    finally:
        try:
            channel.send(codec.dumps(list(message)))
        finally:
            posix._exit(0)


def _failure(ended: Ended, kept: str) -> Failed:
    how = f"exit status {ended.code}"
    if ended.oom:
        how = "killed for lack of memory"
    elif ended.signal:
        how = f"ended by signal {ended.signal}"
    hint = ""
    if kept:
        hint = f"its container is left: `sysbox diff {kept}`, `sysbox cp {kept}:PATH .`, `sysbox rm {kept}`"
    return Failed(f"the command failed: {how}", hint=hint, code=ended.code, container=kept)


def _keep(record: Record, step: RunStep) -> str:
    """Leave the container to look into; its layers have their own names by now."""
    from sysbox.build.layers import settled

    mounted = {one.target for one in step.mounts if one.kind == "bind"}
    resolved = record.resolved or Resolved()
    record = record.replace(
        spec=record.spec.replace(
            remove=False,
            # what they had is gone with the build
            mounts=tuple(one for one in record.spec.mounts if one.target not in mounted),
        ),
        resolved=resolved.replace(layers=tuple(settled(one).name for one in step.layers)),
    )
    store.save(record)
    driver_of(record).renew(record.directory)
    return record.name


def _end(record: Record, ended: Ended | None) -> None:
    """Release what the run had, and remove the container unless it is kept."""
    if settle(record.id, ended, force=True) is not None:
        return
    try:
        # it has not run
        remove.remove(record, force=True, with_volumes=True)
    except (SysboxError, OSError):
        pass  # ignoring: why it did not start is the better message, and `gc` removes the rest
