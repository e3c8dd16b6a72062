"""Build one stage: each instruction in turn, from the cache where it was made before.

The key of a step is a digest of the layers below, by their chain id, of the instruction with everything
resolved, and of the content of what it copies or mounts. Instructions that change only the configuration have
no key: they cost nothing.
"""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import SysboxError
from sysbox.build import config, content, expansion, fetch, layers, model, root, run
from sysbox.build.cache import key_of
from sysbox.build.run import RunStep
from sysbox.build.run_mounts import Given, StepMounts
from sysbox.build.stage_copy import Copying
from sysbox.fs import changes
from sysbox.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.build.layers import StackLayer, Workshop
    from sysbox.build.model import Instruction, Plan, Stage
    from sysbox.build.options import Options
    from sysbox.build.origins import Origins
    from sysbox.build.state import State

_FORMAT = "1"  # of keys: raised when the same key would mean something else
_SCRIPTS = "/dev/pipes"  # where BuildKit has the files of here-documents


class StepError(SysboxError):
    """A step has failed; the place and `text` are its instruction's."""

    def __init__(self, instruction: Instruction, error: SysboxError) -> None:
        super().__init__(error.message, hint=error.hint)
        self.file = instruction.file
        self.line = instruction.line
        self.column = instruction.column
        self.text = instruction.text


class Progress:
    """What a stage says while it is built."""

    def begin(self, number: int, instruction: Instruction) -> None:
        """A step begins."""

    def done(self, number: int, *, cached: bool, seconds: float) -> None:
        """It is done."""


class Builder:
    """Builds one stage in this process, which is its own for that."""

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        options: Options,
        shop: Workshop,
        state: State,
        origins: Origins,
        given: Given,
        output: int,
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._options = options
        self._shop = shop
        self.state = state
        self._origins = origins
        self._given = given
        self._output = output
        self._cached = False  # the step at hand was

    def build(self, progress: Progress) -> None:
        """All of its instructions. Raises StepError, KeyboardInterrupt; the cache has what was made."""
        started = self._stage.instructions
        for number, one in enumerate(started, 1):
            begin = time.monotonic()
            progress.begin(number, one)
            self._cached = False
            try:
                self._step(number, one)
            except SysboxError as error:
                self._shop.settle()
                raise StepError(one, error) from error
            except BaseException:
                self._shop.settle()
                raise
            seconds = time.monotonic() - begin
            if seconds > 1:
                self._shop.settle()  # a kill costs little work
            self.state.stack = self._shop.named(self.state.stack)
            progress.done(number, cached=self._cached, seconds=seconds)
        self._shop.settle()
        self.state.stack = self._shop.named(self.state.stack)

    def _step(self, number: int, written: Instruction) -> None:
        state = self.state
        one = expansion.expand(written, state.variables)
        before = state.stack
        if isinstance(one, model.Run):
            self._run(number, one)
        elif isinstance(one, model.Copy):
            self._copy(one)
        elif isinstance(one, model.Workdir):
            self._workdir(one)
        else:
            config.apply(state, one, self._plan)
        made = len(state.stack) > len(before)
        if self._options.epoch >= 0:
            state.moment = config.moment_of(self._options.epoch_ns)
        elif made or not state.moment:
            state.moment = config.moment_of(state.stack[-1].created_ns if made else time.time_ns())
        state.history.append(config.step(self._text(one), state.moment, empty=not made))

    def _text(self, one: Instruction) -> str:
        """The instruction as the history has it; of RUN with the arguments that it was run with."""
        if not isinstance(one, model.Run):
            return config.said(one, self.state)
        words = [f"{name}={value}" for name, value in sorted(self._arguments().items())]
        before = f"|{len(words)} {' '.join(words)} " if words else ""
        return f"RUN {before}{' '.join(self._argv(one)[0])}"

    def _arguments(self) -> dict[str, str]:
        found = self.state.variables.arguments
        return {name: value for name, value in found.items() if name not in expansion.PROXIES}

    def _parent(self) -> list[str]:
        stack = self.state.stack
        return [_FORMAT, stack[-1].chain_id if stack else "", str(self.state.usr_bind)]

    def _made(self, key: str, make: Callable[[], StackLayer]) -> None:
        """The layer of a step: that of the cache, else a new one."""
        found = layers.hit(self._shop.store, key) if self._options.cache else None
        self._cached = found is not None
        layers.check_count(len(self.state.stack) + 1)
        self.state.stack = (*self.state.stack, found or make())

    # RUN

    def _argv(self, one: model.Run) -> tuple[tuple[str, ...], str]:
        """(the words to execute, the content of the script among them or "")."""
        if not one.shell:
            return one.command, ""
        text = one.command[0] if one.command else ""
        if one.script:
            text = one.heredocs[0].stripped()
            if text.startswith("#!"):
                return (f"{_SCRIPTS}/{one.heredocs[0].name}",), text
        else:
            for document in one.heredocs:
                text += f"\n{document.content}{document.name}"
        return (*self.state.shell, text), ""

    def _run(self, number: int, one: model.Run) -> None:
        self._check_security(one)
        if not self.state.stack:
            raise SysboxError(
                "the stage is empty: no command can be run in it", hint="COPY one first"
            )
        argv, script = self._argv(one)
        mounted = [
            self._origins.digest(mount.origin, mount.source)
            for mount in one.mounts
            if mount.kind == "bind"
        ]
        state = self.state
        key = key_of(
            [
                "run", *self._parent(), *argv, script, "", *self._environment(), "",
                state.config.user, state.config.workdir, one.network, one.security,
                *one.mount_flags, *mounted,
            ]
        )  # fmt: skip
        self._made(key, lambda: self._run_now(number, one, argv, script, key, mounted))

    def _check_security(self, one: model.Run) -> None:
        if one.security == "insecure" and "security.insecure" not in self._options.allowed:
            raise SysboxError(
                "--security=insecure: is not allowed",
                hint="`--allow security.insecure` of the build allows it: the step is then privileged",
            )
        if one.network == "host" and "network.host" not in self._options.allowed:
            raise SysboxError(
                "--network=host: is not allowed",
                hint="`--allow network.host` of the build allows it",
            )

    def _environment(self) -> list[str]:
        found = {**self._arguments(), **self.state.environment()}
        if self._options.epoch >= 0:
            found.setdefault("SOURCE_DATE_EPOCH", str(self._options.epoch))
        return [f"{name}={value}" for name, value in sorted(found.items())]

    def _run_now(
        self,
        number: int,
        one: model.Run,
        argv: tuple[str, ...],
        script: str,
        key: str,
        mounted: list[str],
    ) -> StackLayer:
        """`mounted` are the digests of bind mounts that the key has."""
        state, options = self.state, self._options
        directory = self._shop.directory("run")
        given = StepMounts(
            one.mounts, self._given, self._origins.open, self._origins.meter, directory,
            self._shop.store.root, state.config.workdir,
        )  # fmt: skip
        proxies = [f"{name}={value}" for name, value in expansion.proxies(self._plan).items()]
        with given:
            both = zip(given.digests, mounted, strict=True)
            if any(copied and copied != known for copied, known in both):
                key = ""
            if script:
                given.mounts.append(_script(directory, argv[0], script))
            step = self._run_step(number, one, argv).replace(
                env=(*self._environment(), *proxies, *given.environment),
                secrets=tuple(given.secrets),
                mounts=tuple(given.mounts),
            )

            def take(upper: str, targets: list[str]) -> StackLayer:
                return self._shop.take(upper, state.stack, targets, key=key, note=one.text)

            return run.run(
                step,
                options.template,
                self._output,
                take,
                keep_failed=options.keep_failed,
                before_keeping=self._shop.settle,
            )

    def _run_step(self, number: int, one: model.Run, argv: tuple[str, ...]) -> RunStep:
        """The step without its variables and mounts."""
        state, options = self.state, self._options
        return RunStep(
            name=f"build-{options.id}-{_name(self._stage.title())}-{number}",
            argv=argv,
            env=(),
            workdir=state.config.workdir or "/",
            user=state.config.user,
            network=one.network if one.network != "default" else "",
            privileged=one.security == "insecure",
            layers=state.stack,
            # of a stage from scratch no image has them, and a record names one
            image_id=state.image_id or state.stack[-1].chain_id,
            image_name=state.image_name,
            usr_bind=state.usr_bind,
            labels={"sysbox.build": options.id, "sysbox.build.stage": self._stage.title()},
        )

    # COPY, ADD, WORKDIR

    def _copy(self, one: model.Copy) -> None:
        state = self.state
        limits = fetch.Limits(size=self._options.fetch_size, files=self._options.context_files)
        with Copying(one, self._origins, state.config.workdir, self._shop, limits) as copying:
            key = key_of(["copy", *self._parent(), *copying.key()])
            self._made(key, lambda: self._in_root(copying.put, key, one.text))

    def _workdir(self, one: model.Workdir) -> None:
        state = self.state
        path = content.normal(one.path, state.config.workdir)
        state.config = state.config.replace(workdir=path)
        if path == "/" or self._is_there(path):
            return

        user = state.config.user

        def make(stage: int) -> bool:
            posix.close(root.make_directory(stage, path, root.owner_of_user(stage, user))[0])
            return True

        key = key_of(["workdir", *self._parent(), path, *filter(None, [user])])
        self._made(key, lambda: self._in_root(make, key, one.text))

    def _is_there(self, path: str) -> bool:
        lower = self._shop.lower(self.state.stack)
        try:
            found = changes.at(lower, changes.resolve(path, lower))
            if found is None:
                return False
            found.close()
            return found.is_directory
        finally:
            lower.close()

    def _in_root(self, work: Callable[[int], bool], key: str, note: str) -> StackLayer:
        """The layer that `work` makes in the stage's root, of which it gets a descriptor.

        The cache gets it if `work` says that it is what the key says.
        """
        with root.StageRoot(self.state.stack, self._shop.directory("root")) as stage:
            as_known = work(stage.fd)
            upper = stage.upper
        return self._shop.take(upper, self.state.stack, key=key if as_known else "", note=note)


def _script(directory: str, target: str, text: str) -> Mount:
    """The file of a here-document that begins with #!, on disk: /run may be noexec."""
    path = f"{directory}/script"
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o755)
    try:
        posix.write(fd, text.encode("utf-8", "surrogateescape"))
        posix.fchmod(fd, 0o755)
    finally:
        posix.close(fd)
    return Mount(kind="bind", target=target, source=path, read_only=True)


def _name(title: str) -> str:
    """What a container's name may have of a stage's."""
    return "".join(one if one.isascii() and one.isalnum() else "-" for one in title)[:40]
