"""A Containerfile as data: its instructions, its stages, and the plan of what a target needs. Frozen, pure.

`parser.parse` makes a Containerfile of a text, `graph.make_plan` a Plan of a Containerfile. What a stage's
own variables may change stays as it was written until `expansion.expand` has replaced them, since an image's
environment is known only when the stage is built; what a stage is built from is known before. Words and
rules are those of the Dockerfile reference (BuildKit's documentation).
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.spec import Health

MAX_FILE = 4 << 20  # bytes of a Containerfile or an ignore file
MAX_INSTRUCTIONS = 10_000


class Instruction(Frozen):
    """What each instruction has: its place in the file, and its text."""

    file: str  # as errors and progress name it
    line: int  # the first line, from 1
    column: int  # of the keyword, from 1
    last_line: int  # that of the last continuation line, or the last here-document's end
    # the keyword in upper case and its arguments as written, on one line, without comments: for history,
    # progress and cache keys; here-documents are not part of it
    text: str
    escape: str = "\\"  # the file's escape character: \ or `


class Heredoc(Frozen):
    """One here-document of RUN, COPY or ADD."""

    name: str  # its delimiter; the name of the file that COPY and ADD make
    content: str  # whole lines as written
    expands: bool = True  # the delimiter has no quotes: COPY and ADD replace variables in it
    strips: bool = False  # <<-: leading tabs are no part of it
    descriptor: int = 0  # 3<<NAME: for the shell

    def stripped(self) -> str:
        """The content, without leading tabs where `<<-` says so."""
        if not self.strips:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


class From(Instruction):
    """FROM [--platform=P] IMAGE [AS NAME]; variables are those of the ARGs before the first FROM."""

    image: str  # an image, the name of an earlier stage, or scratch
    name: str = ""  # in lower case; "" where it has none
    platform: str = ""


class RunMount(Frozen):
    """One RUN --mount=type=…; a value with a variable is its default until it is expanded."""

    kind: str = "bind"  # bind, cache, tmpfs, secret, ssh
    # below the WORKDIR where it is relative, "." where it is not given; with secret and ssh "" is
    # /run/secrets/ID and /run/buildkit/ssh_agent.N
    target: str = ""
    source: str = ""  # bind, cache: a path in `origin`; "" is its root
    # from=: stage, image or named context; "" is the build context, and with cache nothing
    origin: str = ""
    read_only: bool = False  # bind: true unless `rw` is given; what is written is discarded
    id: str = ""  # cache: "" is its target; secret: "" is the last part of the target; ssh: default
    sharing: str = "shared"  # cache: shared, private, locked
    size: int = 0  # tmpfs: bytes; 0 is no limit
    # cache: 0755; secret: 0400; ssh: 0600, or as given
    mode: int = -1
    uid: int = 0
    gid: int = 0
    required: bool = False  # secret, ssh: an error where it is not given
    env: str = ""  # secret: the variable that has it; without a target it is no file then


class Run(Instruction):
    """RUN. Variables are the shell's, except in --mount."""

    # exec form: the words; shell form: one text (of the line alone, or with here-documents: see `script`)
    command: tuple[str, ...]
    shell: bool  # the stage's SHELL comes before the text
    # () or, in shell form, all of the line's. Where the line is one here-document and nothing else, `script`
    # is true, and its stripped content is what the shell runs (a file to execute, where it begins with #!);
    # else the shell gets the text, a newline, and each here-document with its end
    heredocs: tuple[Heredoc, ...] = ()
    script: bool = False
    mounts: tuple[RunMount, ...] = ()
    mount_flags: tuple[str, ...] = ()  # the values of --mount as written
    network: str = ""  # default, none, host; "" is as the build says
    security: str = ""  # sandbox, insecure; "" is sandbox


class Copy(Instruction):
    """COPY. Paths of the context or of `origin`, relative to its root; patterns are not expanded yet."""

    sources: tuple[str, ...]  # without here-documents
    # below the WORKDIR where it is relative; with a slash at its end, or several sources, a directory
    destination: str
    heredocs: tuple[Heredoc, ...] = ()  # files of these names
    origin: str = ""  # --from: stage, image or named context; "" is the build context
    chown: str = ""  # USER[:GROUP], names or numbers
    chmod: str = ""  # octal, or symbolic as in u=rwX,go=rX
    link: bool = False
    parents: bool = False  # keep the directories of a source, from its pivot /./ on
    exclude: tuple[str, ...] = ()  # patterns as in an ignore file


class Add(Copy):
    """ADD: sources may be URLs (http, https, git) and archives as well. It has no --from."""

    checksum: str = ""  # "sha256:<64 hex>" of a URL's content, or a commit of a git repository
    keep_git_dir: bool = False
    unpack: bool | None = None  # None: local archives yes, those from a URL no


class Env(Instruction):
    """ENV."""

    pairs: tuple[tuple[str, str], ...]


class Label(Instruction):
    """LABEL."""

    pairs: tuple[tuple[str, str], ...]


class Arg(Instruction):
    """ARG; None is no default."""

    pairs: tuple[tuple[str, str | None], ...]


class Workdir(Instruction):
    """WORKDIR; a relative path is below the one before."""

    path: str


class User(Instruction):
    """USER."""

    user: str  # NAME|UID[:GROUP|GID]


class Expose(Instruction):
    """EXPOSE; once expanded each is PORT/PROTOCOL, a range is all of its ports."""

    ports: tuple[str, ...]


class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]


class Entrypoint(Instruction):
    """ENTRYPOINT; () clears it. It resets a CMD that the base image has."""

    command: tuple[str, ...]  # exec form: the words; shell form: one text
    shell: bool


class Cmd(Instruction):
    """CMD; () clears it."""

    command: tuple[str, ...]
    shell: bool


class Shell(Instruction):
    """SHELL: what comes before the text of the shell forms after it; /bin/sh -c at first."""

    command: tuple[str, ...]


class Healthcheck(Instruction):
    """HEALTHCHECK; its command is ("CMD-SHELL", text) or ("CMD", words...), or it is disabled (NONE)."""

    health: Health  # `health.command` is () here; times in microseconds
    command: tuple[str, ...] = ()


class Stopsignal(Instruction):
    """STOPSIGNAL; checked once expanded."""

    signal: str


class Onbuild(Instruction):
    """ONBUILD: kept in the image as `trigger`; a build FROM that image runs it first."""

    trigger: str  # as written: "RUN make"
    instruction: Instruction  # the same, checked


class Maintainer(Instruction):
    """MAINTAINER: the image's author."""

    name: str


class ParsedStage(Frozen):
    """One FROM and the instructions up to the next one."""

    start: From
    instructions: tuple[Instruction, ...]


class Containerfile(Frozen):
    """A whole file, checked as far as that is possible without variables and images."""

    file: str
    stages: tuple[ParsedStage, ...]
    arguments: tuple[Arg, ...] = ()  # before the first FROM
    syntax: str = ""  # of the directives `syntax`, `check`; "" where they are not given
    check: str = ""
    escape: str = "\\"
    warnings: tuple[str, ...] = ()  # one line each, with FILE:LINE:COLUMN


class Request(Frozen):
    """What the command line says about the plan."""

    target: str = ""  # the name or the number of a stage; "" is the last one
    # --build-arg: None where only a name was given and the caller's environment does not have it
    arguments: dict[str, str | None] = {}  # noqa: RUF012 (the metaclass makes it a default)
    platform: str = ""  # of the target, OS/ARCH[/VARIANT]; "" is `own_platform`
    own_platform: str = "linux/amd64"  # of this machine
    contexts: tuple[str, ...] = ()  # names of --build-context, which come before stages and images
    # those that stand for an image: the name -> the image's
    images: dict[str, str] = {}  # noqa: RUF012
    env: tuple[tuple[str, str], ...] = ()  # --env: ENV at the beginning of each stage


class Source(Frozen):
    """Where files or a base come from, once it is clear which of all it is."""

    kind: str  # stage, image, context (a named one), scratch
    stage: int = -1  # index into the file's stages, for kind stage
    name: str = ""  # for image: the reference as written, variables replaced; for context its name
    platform: str = ""  # for image: OS/ARCH[/VARIANT] to take from an index


class Variables(Frozen):
    """What $NAME means at one point of a stage. ENV comes before ARG of the same name, always."""

    environment: dict[str, str] = {}  # noqa: RUF012 the base image's, and that of ENV
    arguments: dict[str, str] = {}  # noqa: RUF012 of the ARGs so far: RUN has them in its environment

    def all(self) -> dict[str, str]:
        """The environment of RUN, and what is put for $NAME."""
        return {**self.arguments, **self.environment}


class Stage(Frozen):
    """A stage that the target needs."""

    index: int  # in the file, from 0
    name: str  # "" where it has none
    start: From  # its variables are replaced
    base: Source
    platform: str  # what it is built for: OS/ARCH[/VARIANT]
    # the triggers of the base image come first; values as written: see `expansion`
    instructions: tuple[Instruction, ...]
    triggers: int = 0  # how many of them are triggers
    needs: tuple[int, ...] = ()  # indexes of the stages that must be there before
    # what --from and from= name in this stage: the name as written -> what it is
    sources: dict[str, Source] = {}  # noqa: RUF012

    def title(self) -> str:
        """For progress: its name, or "stage-N"."""
        return self.name or f"stage-{self.index}"


class Plan(Frozen):
    """All that is built for a target."""

    file: str
    target: int  # index of the target's stage in the file
    stages: tuple[Stage, ...]  # each after all that it needs; the target is the last one
    # every image that is used: base images, --from, from=; each once
    images: tuple[Source, ...]
    # what an ARG of a stage without a default may take: --build-arg, then the ARGs before the first FROM
    given: dict[str, str] = {}  # noqa: RUF012
    inherited: dict[str, str] = {}  # noqa: RUF012
    unused: tuple[str, ...] = ()  # --build-arg that no ARG of the whole file declares
    warnings: tuple[str, ...] = ()
