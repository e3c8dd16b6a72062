"""`sysbox build`: make an image of a Containerfile."""

from __future__ import annotations

import functools

from sysbox.base.errors import KernelError, SpecError, UsageError
from sysbox.base.files import is_directory
from sysbox.base.frozen import Frozen
from sysbox.base.visible import for_terminal
from sysbox.build import result
from sysbox.build.workers import BuildError
from sysbox.cli import build_progress
from sysbox.cli.output import emit, line, note, write_all
from sysbox.cli.output_file import OutputDirectory, OutputFile
from sysbox.cli.request import build as request
from sysbox.image.store import Store
from sysbox.lifecycle import build as building

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.build.layers import Workshop
    from sysbox.build.model import Plan
    from sysbox.build.state import State
    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image
    from sysbox.image.registry.pull import Report

_KINDS = ("image", "local", "tar", "oci", "docker")
_ARCHIVES = {"oci": "oci-archive", "docker": "docker-archive"}  # by the names of `save`


class Output(Frozen):
    """One --output."""

    kind: str  # one of _KINDS
    path: str = ""  # - is standard output


def main(values: Values) -> int:
    """0; prints the image's id."""
    outputs = [_output(text) for text in values.output] or [Output(kind="image")]
    kind = values.progress or "auto"
    if kind not in ("auto", "tty", "plain", "quiet"):
        raise UsageError(f"--progress {kind}: must be auto, tty, plain or quiet")
    for flag, path in (*(("--output", one.path) for one in outputs), ("--iidfile", values.iidfile)):
        _check_place(flag, path or "-")
    image = any(one.kind in ("image", *_ARCHIVES) for one in outputs)
    asked = request.asked(values, image=image)
    given = request.given_to_steps(values)
    quiet = values.quiet or kind == "quiet"
    report = build_progress.shown(kind, quiet=quiet)
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
    if built.image is None:
        return 0
    _write_archives(outputs, built.image)
    if values.iidfile:
        _write(values.iidfile, built.image.id.encode())
    if all(one.path != "-" for one in outputs):
        line(built.image.id)
    return 0


def _check_place(flag: str, path: str) -> None:
    """Raises SpecError before the build for a file that cannot be made after it."""
    above = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
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


def _output(text: str) -> Output:
    """`PATH`, `-`, or `type=TYPE,dest=PATH`. Raises UsageError."""
    if "=" not in text:
        return Output(kind="tar", path="-") if text == "-" else Output(kind="local", path=text)
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind = fields.pop("type", "")
    path = fields.pop("dest", fields.pop("dst", ""))
    if kind not in _KINDS or fields:
        raise UsageError(
            f"--output {text}: not type=TYPE,dest=PATH", hint=f"TYPE: {', '.join(_KINDS)}"
        )
    if not path and kind != "image":
        path = "" if kind == "local" else "-"
    if kind == "local" and not path:
        raise UsageError(f"--output {text}: needs dest=DIRECTORY")
    return Output(kind=kind, path=path)


def _write_files(outputs: list[Output], shop: Workshop, state: State) -> None:
    for one in outputs:
        if one.kind == "local":
            directory = OutputDirectory(one.path)
            try:
                result.write_tree(shop, state, directory.fd)
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


def _pulling(*, quiet: bool) -> Report:
    from sysbox.cli import pulling  # which most builds do not need

    return pulling.Shown(quiet=quiet)


def _write_archives(outputs: list[Output], image: Image) -> None:
    if not any(one.kind in _ARCHIVES for one in outputs):
        return
    from sysbox.image.formats.save import choose, save
    from sysbox.image.formats.sinks import ArchiveSink

    store = Store()
    for one in outputs:
        if one.kind not in _ARCHIVES:
            continue
        chosen = choose(store, list(image.names) or [image.id])
        if one.path == "-":
            save(store, chosen, _ARCHIVES[one.kind], ArchiveSink(1, lambda _: None, write_all))
            continue
        file = OutputFile(one.path)
        try:
            save(store, chosen, _ARCHIVES[one.kind], ArchiveSink(file.fd, lambda _: None))
            file.done()
        finally:
            file.close()


def _write(path: str, data: bytes) -> None:
    file = OutputFile(path)
    try:
        write_all(file.fd, data)
        file.done()
    except OSError as error:
        raise SpecError(f"--iidfile {path}: {error.strerror}") from None
    finally:
        file.close()
