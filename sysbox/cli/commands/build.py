"""`sysbox build`: make an image of a Containerfile."""

from __future__ import annotations

import functools

from sysbox.base import codec
from sysbox.base.errors import KernelError, SpecError, UsageError
from sysbox.base.files import is_directory
from sysbox.base.visible import for_terminal
from sysbox.build import result
from sysbox.build.workers import BuildError
from sysbox.cli import build_progress
from sysbox.cli.output import emit, line, note, write_all
from sysbox.cli.output_file import OutputDirectory, OutputFile
from sysbox.cli.request import build as request
from sysbox.cli.request.build_output import Output, wanted
from sysbox.cli.request.registries import transfer
from sysbox.host import exists
from sysbox.image.store import Store
from sysbox.lifecycle import build as building

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.build.layers import Workshop
    from sysbox.build.model import Plan
    from sysbox.build.run_mounts import Given
    from sysbox.build.state import State
    from sysbox.build.workers import Report
    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image
    from sysbox.image.registry.pull import Report as PullReport
    from sysbox.lifecycle.build import Asked


def main(values: Values) -> int:
    """0; prints the image's id."""
    outputs = wanted(values)
    kind = values.progress or "auto"
    if kind not in ("auto", "tty", "plain", "quiet"):
        raise UsageError(f"--progress {kind}: must be auto, tty, plain or quiet")
    files = (("--iidfile", values.iidfile), ("--metadata-file", values.metadata_file))
    for one in outputs:
        _check_place("--output", one.path or "-", one.kind)
    for flag, path in files:
        _check_place(flag, path or "-")
    image = any(one.makes_image for one in outputs)
    names = tuple(name for one in outputs for name in one.names)
    asked = request.asked(values, image=image, names=names)
    if any(one.push for one in outputs) and not asked.options.names:
        raise UsageError("--push: the image has no name", hint="give one: -t REGISTRY/NAME:TAG")
    for text in values.cache_from:
        note(f"ignoring --cache-from {text}: the cache is this host's own")
    given = request.given_to_steps(values)
    quiet = values.quiet or kind == "quiet"
    made = _build(asked, given, outputs, build_progress.shown(kind, quiet=quiet), quiet=quiet)
    if made is not None:
        _deliver(values, outputs, made, asked.options.names, quiet=quiet)
    return 0


def _build(
    asked: Asked, given: Given, outputs: list[Output], report: Report, *, quiet: bool
) -> Image | None:
    try:
        built = building.build(
            asked,
            given,
            report,
            pulling=lambda: _pulling(quiet=quiet),
            planned=_warn,
            also=lambda shop, state: _write_files(outputs, shop, state),
        )
    except BuildError as error:
        _finish(report)
        if not isinstance(report, build_progress.Plain) and error.output:
            emit(for_terminal(error.output.decode("utf-8", "replace") + "\n", 2), 2)
        raise
    except BaseException:
        _finish(report)
        raise
    _finish(report)
    return built.image


def _deliver(
    values: Values, outputs: list[Output], image: Image, names: tuple[str, ...], *, quiet: bool
) -> None:
    """Archives, registries, files, and last the id."""
    _write_archives(outputs, image)
    if any(one.push for one in outputs):
        _push(values, names, quiet=quiet)
    if values.iidfile:
        _write("--iidfile", values.iidfile, image.id.encode())
    if values.metadata_file:
        _write("--metadata-file", values.metadata_file, _metadata(image, names))
    if all(one.path != "-" for one in outputs):
        line(image.id)


def _check_place(flag: str, path: str, kind: str = "") -> None:
    """Raises SpecError before the build for a file that cannot be made after it."""
    above = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    if kind == "local" and exists(path) and not is_directory(path):
        raise SpecError(
            f"{flag} {path}: is not a directory", hint="type=tar,dest=FILE is an archive"
        )
    if path != "-" and not is_directory(above):
        raise SpecError(f"{flag} {path}: {above} is not a directory", hint="make it first")


def _finish(report: object) -> None:
    if isinstance(report, build_progress.Live | build_progress.Plain):
        report.finish()


def _warn(plan: Plan) -> None:
    for text in plan.warnings:
        note(text)
    for name in plan.unused:
        note(f"--build-arg {name}: no ARG of {plan.file} has this name")


def _write_files(outputs: list[Output], shop: Workshop, state: State) -> None:
    for one in outputs:
        if one.kind == "local":
            directory = OutputDirectory(one.path)
            try:
                result.write_tree(shop, state, directory.fd, _left_out)
                directory.done()
            finally:
                directory.close()
        elif one.kind == "tar" and one.path == "-":
            result.write_archive(shop, state, lambda data: write_all(1, data))
        elif one.kind == "tar":
            file = OutputFile(one.path)
            try:
                result.write_archive(shop, state, functools.partial(write_all, file.fd))
                file.done()
            except OSError as error:
                raise KernelError.of("write", one.path, error) from None
            finally:
                file.close()


def _left_out(name: str, why: str) -> None:
    note(f"--output: left out {name}: {why}")


def _pulling(*, quiet: bool) -> PullReport:
    from sysbox.cli import pulling  # which most builds do not need

    return pulling.Shown(quiet=quiet)


def _write_archives(outputs: list[Output], image: Image) -> None:
    outputs = [one for one in outputs if one.archive]
    if not outputs:
        return
    from sysbox.image.formats.save import choose, save
    from sysbox.image.formats.sinks import ArchiveSink

    store = Store()
    for one in outputs:
        chosen = choose(store, list(image.names) or [image.id])
        if one.path == "-":
            save(store, chosen, one.archive, ArchiveSink(1, lambda _: None, write_all))
            continue
        file = OutputFile(one.path)
        try:
            save(store, chosen, one.archive, ArchiveSink(file.fd, lambda _: None))
            file.done()
        finally:
            file.close()


def _push(values: Values, names: tuple[str, ...], *, quiet: bool) -> None:
    from sysbox.cli.commands import push  # which most builds do not need
    from sysbox.image.reference import parse
    from sysbox.image.registry.push import Options

    store = Store()
    options = Options(**transfer(values))
    for name in names:
        target = parse(name)
        done = push.shown(store, store.resolve(name), target, options, quiet=quiet)
        if not quiet:
            emit(f"{push.told(target, done)}\n", 2)


def _metadata(image: Image, names: tuple[str, ...]) -> bytes:
    """What buildx writes of an image, by its keys."""
    return codec.dumps(
        {
            "containerimage.config.digest": image.id,
            "containerimage.digest": image.manifest,
            "image.name": ",".join(names),
        }
    )


def _write(flag: str, path: str, data: bytes) -> None:
    file = OutputFile(path)
    try:
        write_all(file.fd, data)
        file.done()
    except OSError as error:
        raise SpecError(f"{flag} {path}: {error.strerror}") from None
    finally:
        file.close()
