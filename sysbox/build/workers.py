"""All stages of a plan, side by side: a process for each, and the coordinator that starts and hears them.

A stage starts when its base is there, and waits for another stage only at the instruction that needs it. The
workers ignore the terminal's signals: on one of them, and on the first failure, the coordinator ends them
all, each of which ends its container and keeps what it has made. A worker ends with the coordinator.
"""

from __future__ import annotations

import _signal
import posix
import select

from sysbox.base.errors import SysboxError
from sysbox.build import origins, state
from sysbox.build.channel import Channel
from sysbox.build.layers import Workshop
from sysbox.build.stage import Builder, Progress, StepError
from sysbox.image.crew import described, restored
from sysbox.linux import _sys
from sysbox.linux.process import PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sysbox.build.content_sources import Origin
    from sysbox.build.model import Instruction, Plan, Source, Stage
    from sysbox.build.options import Options
    from sysbox.build.run_mounts import Given
    from sysbox.build.state import State
    from sysbox.image.catalog import Catalog

_CHUNK = 1 << 16
_TICK = 500  # milliseconds
_KEPT = 64 << 10  # bytes of a failed step's output that are shown
_LINES = 20


class Report:
    """What a build tells its caller; the command line has a subclass that shows it."""

    def stage_begins(self, one: Stage) -> None:
        """A stage begins."""

    def step_begins(self, one: Stage, number: int, instruction: Instruction) -> None:
        """A step of it begins; `number` counts from 1."""

    def output(self, one: Stage, data: bytes) -> None:
        """What the current step of a stage has printed."""

    def step_done(self, one: Stage, number: int, *, cached: bool, seconds: float) -> None:
        """It is done."""

    def so_far(self, one: Stage, what: str, files: int, size: int) -> None:
        """Its step has "read", "copied" or "fetched" so many files and bytes, and goes on."""

    def tick(self) -> None:
        """Called twice a second at least."""


class BuildError(SysboxError):
    """A step has failed: where, and the last lines of its output."""

    def __init__(self, message: str, *, hint: str, output: bytes, container: str) -> None:
        super().__init__(message, hint=hint)
        self.output = output
        self.container = container  # that is left to look into, or ""


class Job:
    """What the workers need besides the plan; it is inherited by the fork."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        store: Catalog,
        context: Origin,
        named: dict[str, Origin],
        given: Given,
        images: dict[tuple[str, str], str],
        directory: str,
    ) -> None:
        """`images`: (name, platform) of each image of the plan -> its id; `directory` is an empty one."""
        self.plan = plan
        self.options = options
        self.store = store
        self.context = context
        self.named = named
        self.given = given
        self.images = images
        self.directory = directory

    def image(self, source: Source) -> str:
        return self.images[source.name, source.platform]

    def file_of(self, index: int) -> str:
        """Where a stage that is done is written."""
        return f"{self.directory}/stage-{index}.json"


class _Worker:
    """A stage's process, as the coordinator sees it."""

    def __init__(self, one: Stage, pid: int, channel: Channel, output: int) -> None:
        self.stage = one
        self.pid = pid
        self.channel = channel
        self.output = output  # the end of a pipe that is read
        self.waits_for = -1  # the index of a stage
        self.last = b""  # of the current step's output
        self.ended = False


class Coordinator:
    """Builds a plan."""

    def __init__(self, job: Job, report: Report, most: int) -> None:
        """At most `most` stages are at work at once."""
        self._job = job
        self._report = report
        self._most = most
        self._stages = {one.index: one for one in job.plan.stages}
        self._waiting = list(job.plan.stages)
        self._workers: list[_Worker] = []
        self._done: set[int] = set()

    def build(self) -> State:
        """The target as it was built. Raises BuildError, SysboxError, KeyboardInterrupt."""
        try:
            while self._waiting or self._workers:
                self._start()
                self._hear()
        except BaseException:
            self._end_all()
            raise
        return state.read(self._job.file_of(self._job.plan.target))

    def _start(self) -> None:
        for one in list(self._waiting):
            active = sum(worker.waits_for < 0 for worker in self._workers)
            if active >= self._most:
                return
            if one.base.kind != "stage" or one.base.stage in self._done:
                self._waiting.remove(one)
                self._report.stage_begins(one)
                self._workers.append(self._fork(one))

    def _fork(self, one: Stage) -> _Worker:
        ours, theirs = Channel.pair()
        reading, writing = posix.pipe2(posix.O_CLOEXEC)
        parent = posix.getpid()
        pid = posix.fork()
        if pid:
            theirs.close()
            posix.close(writing)
            posix.set_blocking(reading, False)
            return _Worker(one, pid, ours, reading)
        try:
            ours.close()
            posix.close(reading)
            for other in self._workers:
                other.channel.close()
                posix.close(other.output)
            _become_worker(parent)
            _work(self._job, one, theirs, writing)
        finally:
            posix._exit(0)

    def _hear(self) -> None:
        poll = select.poll()
        by_fd: dict[int, tuple[_Worker, bool]] = {}
        for worker in self._workers:
            by_fd[worker.output] = (worker, True)
            by_fd[worker.channel.fileno()] = (worker, False)
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(_TICK):
            worker, is_output = by_fd[fd]
            if is_output:
                self._read(worker)
            elif not worker.ended:
                self._message(worker, worker.channel.hear())
        for worker in [one for one in self._workers if one.ended]:
            self._reap(worker)
        self._report.tick()

    def _read(self, worker: _Worker) -> None:
        """Show what is in the pipe."""
        while True:
            try:
                data = posix.read(worker.output, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            worker.last = (worker.last + data)[-_KEPT:]
            self._report.output(worker.stage, data)

    def _message(self, worker: _Worker, data: dict[str, Any]) -> None:
        kind = data.get("kind", "")
        self._read(worker)  # it was printed before
        if kind == "begin":
            worker.last = b""
            one = worker.stage.instructions[data["number"] - 1]
            self._report.step_begins(worker.stage, data["number"], one)
        elif kind == "done":
            self._report.step_done(
                worker.stage, data["number"], cached=data["cached"], seconds=data["seconds"]
            )
        elif kind == "so far":
            self._report.so_far(worker.stage, data["what"], data["files"], data["size"])
        elif kind == "need":
            worker.waits_for = data["stage"]
            self._answer()
        elif kind == "end":
            self._done.add(worker.stage.index)
            worker.ended = True
            self._answer()
        elif kind == "error":
            raise self._error(worker, data)
        else:
            raise SysboxError(
                f"{self._job.plan.file}: the process that built the stage {worker.stage.title()} was killed",
                hint="was the host out of memory? `journalctl -k` knows",
            )

    def _answer(self) -> None:
        for worker in self._workers:
            if worker.waits_for in self._done:
                worker.channel.say("ready", stage=worker.waits_for)
                worker.waits_for = -1

    def _error(self, worker: _Worker, data: dict[str, Any]) -> Exception:
        error = restored(data["error"])
        if not isinstance(error, SysboxError) or not data.get("file"):
            return error
        line = f"{data['file']}:{data['line']}:"
        message = error.message
        # what is wrong with one word of it has that word's column
        if not message.startswith(line):
            message = f"{line}{data['column']}: {data['text'].partition(' ')[0]}: {message}"
        last = b"\n".join(worker.last.rstrip().split(b"\n")[-_LINES:])
        return BuildError(
            message, hint=error.hint, output=last, container=getattr(error, "container", "")
        )

    def _reap(self, worker: _Worker) -> None:
        self._read(worker)
        self._workers.remove(worker)
        worker.channel.close()
        posix.close(worker.output)
        posix.waitpid(worker.pid, 0)

    def _end_all(self) -> None:
        """Ask all to end, and wait: each has a container to end first."""
        for worker in self._workers:
            try:
                posix.kill(worker.pid, _signal.SIGTERM)
            except ProcessLookupError:
                pass  # ignoring: it has ended
        while self._workers:
            worker = self._workers[-1]
            # it may be about to say or print something
            posix.set_blocking(worker.output, True)
            while posix.read(worker.output, _CHUNK):
                pass
            self._reap(worker)


def _become_worker(parent: int) -> None:
    posix.setpgid(0, 0)
    _sys.prctl(PR_SET_PDEATHSIG, _signal.SIGTERM)
    if posix.getppid() != parent:
        posix._exit(0)
    for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT):
        _signal.signal(number, _signal.default_int_handler)


class _Told(Progress):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begin(self, number: int, instruction: Instruction) -> None:  # noqa: ARG002 (the number says which)
        self._channel.say("begin", number=number)

    def done(self, number: int, *, cached: bool, seconds: float) -> None:
        self._channel.say("done", number=number, cached=cached, seconds=seconds)


def _work(job: Job, one: Stage, channel: Channel, output: int) -> NoReturn:
    """In the worker: build the stage, and say how it ended."""
    try:
        _build(job, one, channel, output)
        channel.say("end")
    except StepError as error:
        place = {"file": error.file, "line": error.line, "column": error.column}
        cause = error.__cause__ or error
        channel.say("error", error=described(cause), text=error.text[:200], **place)
    except KeyboardInterrupt:
        pass  # the coordinator knows why
    except BaseException as error:  # noqa: BLE001 (the coordinator raises it)
        channel.say("error", error=described(error))
    finally:
        posix._exit(0)


def _build(job: Job, one: Stage, channel: Channel, output: int) -> None:
    def wait_for(index: int) -> State:
        channel.say("need", stage=index)
        if not channel.hear():
            raise KeyboardInterrupt
        return state.read(job.file_of(index))

    def tell(what: str, files: int, size: int) -> None:
        channel.say("so far", what=what, files=files, size=size)

    with Workshop(job.store, job.options.epoch_ns) as shop:
        begun = _base(job, one)
        with origins.Origins(
            shop, one.sources, job.context, job.named, wait_for, job.image, job.options, tell
        ) as trees:
            builder = Builder(job.plan, one, job.options, shop, begun, trees, job.given, output)
            builder.build(_Told(channel))
        begun.write(job.file_of(one.index))


def _base(job: Job, one: Stage) -> State:
    if one.base.kind == "stage":
        found = state.read(job.file_of(one.base.stage))
        found.extra.pop("OnBuild", None)
        found.own_cmd = False
        return found
    if one.base.kind == "scratch":
        return state.of_nothing()
    image = job.store.find(job.image(one.base))[1]
    return state.of_base(job.store, image, one.base.name)


def at_once(stages: int, cpus: int) -> int:
    """How many stages are at work at once."""
    return max(2, min(stages, cpus + 1))
