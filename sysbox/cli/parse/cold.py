"""The cold tier: click's commands, made from the option table, for help, completion and error messages.

click parses the command lines of cold verbs, and those that the hot parser rejected, to explain the error.
The caller calls `program.load_site()` before it imports this module.
"""

from __future__ import annotations

import click

from sysbox.base.errors import UsageError
from sysbox.base.suggest import nearest
from sysbox.cli import invoke
from sysbox.cli.output import line
from sysbox.cli.parse import completers, hot, later
from sysbox.cli.table.options import Argument, Option, Values, Verb, arguments
from sysbox.cli.table.verbs import GROUPS, VERBS, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

COMPLETE_VARIABLE = "_SYSBOX_COMPLETE"
_WIDEST = 120  # columns of help; longer lines are hard to read


def main(words: list[str]) -> int:
    """Run a command line; returns the exit status. Raises SysboxError."""
    try:
        status = root().main(
            words,
            prog_name="sysbox",
            standalone_mode=False,
            complete_var=COMPLETE_VARIABLE,
            max_content_width=_WIDEST,
        )
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.exceptions.NoSuchOption as error:
        raise _unknown_flag(error) from None
    except click.UsageError as error:
        message = error.format_message().rstrip(".")
        raise UsageError(
            f"{_path(error.ctx)}{message[:1].lower()}{message[1:]}", hint=_help(error.ctx)
        ) from None
    return int(status or 0)


def _path(context: click.Context | None) -> str:
    """ "run: ", or nothing where no verb is known yet."""
    verb = context.command_path.removeprefix("sysbox").strip() if context else ""
    return f"{verb}: " if verb else ""


def _help(context: click.Context | None) -> str:
    return f"see `{context.command_path if context else 'sysbox'} --help`"


def _unknown_flag(error: click.exceptions.NoSuchOption) -> UsageError:
    verb = error.ctx.command_path.removeprefix("sysbox").strip() if error.ctx else ""
    flags = later.FLAGS.get(verb.removeprefix("container "), {})
    if error.option_name in flags:
        return UsageError(
            f"{_path(error.ctx)}{error.option_name} {later.NOT_YET}",
            hint=flags[error.option_name] or _help(error.ctx),
        )
    known = [name for name in _flags(error.ctx) if name.startswith("--")]
    hint = did_you_mean(error.option_name, known) or _help(error.ctx)
    return UsageError(f"{_path(error.ctx)}unknown flag {error.option_name}", hint=hint)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the known name nearest to `word`, leading dashes aside; "" if none is near enough."""
    bare = {name.lstrip("-"): name for name in known}
    near = nearest(word.lstrip("-"), bare)
    return f"did you mean {bare[near]}?" if near else ""


def _flags(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    return [name for param in context.command.get_params(context) for name in param.opts]


class Command(click.Command):
    """One verb of the table."""

    def __init__(self, verb: Verb, name: str) -> None:
        self.verb = verb
        options = options_of(verb)
        short_help = not any("-h" in option.names for option in options)
        super().__init__(
            name,
            params=[*map(_Option, options), *(_argument(verb, one) for one in arguments(verb))],
            help=verb.summary + ".",
            short_help=verb.summary,
            callback=self._call,
            context_settings={
                "allow_interspersed_args": verb.interspersed,
                "help_option_names": ["-h", "--help"] if short_help else ["--help"],
            },
        )

    def _call(self, **given: Any) -> int:
        lists = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
        }
        return invoke.invoke(Values(self.verb, lists))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            try:
                values = hot.parse(self.verb, args)
            except hot.Fallback:
                args = self._plain_switches(args)
            else:
                ctx.params = {name: value for name, value in vars(values).items() if name != "verb"}
                return []
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click's parser does not always set it
            raise

    def _plain_switches(self, args: list[str]) -> list[str]:
        """Replace `--rm=true` by `--rm`, and `--pull` by `--pull=always`.

        click has no such forms, and would report them instead of the error.
        """
        switches = {
            name
            for option in options_of(self.verb)
            if not option.metavar
            for name in option.names + option.hidden
        }
        bare = {
            name: f"{name}={option.bare}"
            for option in options_of(self.verb)
            if option.bare
            for name in option.names
        }
        plain = []
        for word in args:
            word = bare.get(word, word)
            name, equals, text = word.partition("=")
            if equals and name in switches and text in hot.TRUE + hot.FALSE:
                plain += [name] if text in hot.TRUE else []
            else:
                plain.append(word)
        return plain

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*(["[OPTIONS]"] if options_of(self.verb) else []), self.verb.args]


def _show_help(context: click.Context, _: click.Parameter, wanted: Any) -> None:
    if wanted and not context.resilient_parsing:
        line(context.get_help())
        context.exit()


class _Option(click.Option):
    """One flag of the table; its hidden spellings are accepted, and not shown."""

    def __init__(self, option: Option) -> None:
        self.option = option
        flag = {"is_flag": True, "flag_value": True, "default": option.on}
        extra: dict[str, Any] = flag if not option.metavar else {"type": str}
        super().__init__(
            [*option.names, *option.hidden, option.dest],
            help=option.help,
            metavar=option.metavar or None,
            multiple=option.repeat,
            shell_complete=completers.of_option(option),
            **extra,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        accepted, self.opts = self.opts, list(self.option.names)
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = accepted


def _argument(verb: Verb, argument: Argument) -> click.Argument:
    return click.Argument(
        [argument.dest],
        metavar=argument.name,
        nargs=-1 if argument.repeat else 1,
        required=argument.required,
        type=click.UNPROCESSED,
        shell_complete=completers.of_argument(verb, argument),
    )


# (names, value, help), for help and completion; parse/global_flags.py reads these flags
GLOBAL = (
    ("--config", "DIRECTORY", "Accepted for docker's scripts, and ignored."),
    ("-c --context", "NAME", "Accepted where it is `default`."),
    ("-H --host", "SOCKET", "Accepted where it is this machine's docker.sock."),
    ("-l --log-level", "LEVEL", "debug is --debug; info, warn, error and fatal are accepted."),
)


class _Table(click.Group):
    """A group whose commands are made from the option table on demand."""

    def __init__(self, group: str = "") -> None:
        super().__init__(
            group or "sysbox",
            help=f"{GROUPS[group]}." if group else "Containers as systemd scopes.",
            short_help=GROUPS.get(group),
            no_args_is_help=False,
            invoke_without_command=True,
            callback=self._call,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self.prefix = f"{group} " if group else ""
        if not group:
            # dispatch.py parses these before click: they are here for help and completion
            self.params.append(
                click.Option(["-D", "--debug"], is_flag=True, help="Show tracebacks of errors.")
            )
            for names, metavar, text in GLOBAL:
                self.params.append(click.Option(names.split(), metavar=metavar, help=text))
            self.params.append(
                click.Option(["-v", "--version"], is_flag=True, help="Show the version.")
            )

    def _call(self, **_: Any) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            click.echo(context.get_help())

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        if self.prefix:
            below = [
                name.removeprefix(self.prefix) for name in VERBS if name.startswith(self.prefix)
            ]
            return sorted({name.partition(" ")[0] for name in below})
        return [name for name in (*VERBS, *GROUPS) if " " not in name]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if self.prefix + cmd_name in GROUPS:
            return _Table(self.prefix + cmd_name)
        verb = VERBS.get(self.prefix + cmd_name)
        return Command(verb, cmd_name) if verb is not None and " " not in cmd_name else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and self.get_command(ctx, args[0]) is None:
            name = self.prefix + args[0]
            if name in later.VERBS:
                raise UsageError(f"{name} {later.NOT_YET}", hint=later.VERBS[name] or _help(ctx))
            raise UsageError(
                f"unknown command '{self.prefix}{args[0]}'",
                hint=_elsewhere(name, args[1:])
                or did_you_mean(args[0], self.list_commands(ctx))
                or _help(ctx),
            )
        return super().resolve_command(ctx, args)


# what systemd's own programs do with declared units
_SYSTEMCTL = frozenset(
    """daemon-reload disable edit enable is-active is-enabled is-failed kill mask reload reset-failed restart
    revert set-property show start status stop unmask""".split()
)


def _elsewhere(name: str, rest: list[str]) -> str:
    """The command to give for `unit start` and the like, and for verbs of podman's; "" for other names."""
    for known in (f"{name} {rest[0]}" if rest else name, name):
        if known in later.PODMANS:
            return later.PODMANS[known] or "nothing here does that"
    group, _, verb = name.partition(" ")
    unit = next((word for word in rest if not word.startswith("-")), "UNIT")
    if group == "unit" and verb in _SYSTEMCTL:
        return f"`systemctl {verb}{'' if verb == 'daemon-reload' else ' ' + unit}` does that"
    return f"`journalctl -u {unit}` does that" if name == "unit logs" else ""


def root() -> click.Group:
    """The whole command line as click sees it."""
    return _Table()
