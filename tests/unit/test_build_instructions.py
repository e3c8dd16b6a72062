"""Each instruction with its flags and forms, by the Dockerfile reference; and what is wrong with others."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.build import parser
from sysbox.build.errors import FileError
from sysbox.build.model import (
    Add,
    Arg,
    Cmd,
    Containerfile,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    RunMount,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)  # fmt: skip
from sysbox.spec import Health


def parse(text: str) -> Containerfile:
    return parser.parse(text.encode(), "C")


def one(text: str) -> Any:
    (found,) = parse(f"FROM x\n{text}\n").stages[0].instructions
    return found


def error(text: str) -> tuple[str, str]:
    with pytest.raises(FileError) as caught:
        parse(text)
    return caught.value.message, caught.value.hint


def fields(found: Instruction) -> dict[str, Any]:
    """Those that are not as by default, without what each instruction has."""
    common = {"file", "line", "column", "last_line", "text", "escape"}
    return {
        key: getattr(found, key)
        for key in found._fields
        if key not in common
        and (key not in found._defaults or found._defaults[key] != getattr(found, key))
    }


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("RUN make all", Run, {"command": ("make all",), "shell": True}),
        ('RUN ["make", "a b"]', Run, {"command": ("make", "a b"), "shell": False}),
        ('RUN  [ "a" , "\\u0041\\n" ] ', Run, {"command": ("a", "A\n"), "shell": False}),
        ("RUN ['make']", Run, {"command": ("['make']",), "shell": True}),
        ('RUN ["c:\\windows\\x.exe"]', Run, {"command": ('["c:\\windows\\x.exe"]',), "shell": True}),
        ("RUN [ -f x ] && y", Run, {"command": ("[ -f x ] && y",), "shell": True}),
        ("RUN --network=none --security=insecure x", Run,
         {"command": ("x",), "shell": True, "network": "none", "security": "insecure"}),
        ("RUN -- --x", Run, {"command": ("--x",), "shell": True}),
        ("CMD a b", Cmd, {"command": ("a b",), "shell": True}),
        ('CMD ["a"]', Cmd, {"command": ("a",), "shell": False}),
        ("CMD []", Cmd, {"command": (), "shell": False}),
        ("ENTRYPOINT []", Entrypoint, {"command": (), "shell": False}),
        ("ENTRYPOINT exec top -b", Entrypoint, {"command": ("exec top -b",), "shell": True}),
        ('SHELL ["/bin/bash", "-c"]', Shell, {"command": ("/bin/bash", "-c")}),
        ("COPY a b /c/", Copy, {"sources": ("a", "b"), "destination": "/c/"}),
        ('COPY ["a b", "c"]', Copy, {"sources": ("a b",), "destination": "c"}),
        ("COPY --from=build --chown=1:2 --chmod=755 --link --parents --exclude=*.a --exclude=b x /", Copy,
         {"sources": ("x",), "destination": "/", "origin": "build", "chown": "1:2", "chmod": "755",
          "link": True, "parents": True, "exclude": ("*.a", "b")}),
        ("COPY --link=false --parents=true x /", Copy,
         {"sources": ("x",), "destination": "/", "parents": True}),
        ('COPY --chown="a:b" \\\n  x /', Copy, {"sources": ("x",), "destination": "/", "chown": "a:b"}),
        ("COPY --from=0 x /", Copy, {"sources": ("x",), "destination": "/", "origin": "0"}),
        ("ADD --checksum=sha256:0 --keep-git-dir --unpack=false --link https://x.org/a /", Add,
         {"sources": ("https://x.org/a",), "destination": "/", "checksum": "sha256:0",
          "keep_git_dir": True, "unpack": False, "link": True}),
        ("ADD --unpack a /", Add, {"sources": ("a",), "destination": "/", "unpack": True}),
        ("ENV a=b", Env, {"pairs": (("a", "b"),)}),
        ("ENV MY_NAME=\"John Doe\" MY_DOG=Rex\\ The\\ Dog \\\n    MY_CAT=fluffy", Env,
         {"pairs": (("MY_NAME", '"John Doe"'), ("MY_DOG", "Rex\\ The\\ Dog"), ("MY_CAT", "fluffy"))}),
        ("ENV ONE TWO= THREE=world", Env, {"pairs": (("ONE", "TWO= THREE=world"),)}),
        ("ENV a\tb  c", Env, {"pairs": (("a", "b  c"),)}),
        ("ENV a= b=''", Env, {"pairs": (("a", ""), ("b", "''"))}),
        ("LABEL a.b=c 'd e'=f", Label, {"pairs": (("a.b", "c"), ("'d e'", "f"))}),
        ("ARG a b=c d=", Arg, {"pairs": (("a", None), ("b", "c"), ("d", ""))}),
        ("WORKDIR /a b", Workdir, {"path": "/a b"}),
        ("USER a:b", User, {"user": "a:b"}),
        ("EXPOSE 80 443/tcp 8000-8010/udp", Expose, {"ports": ("80", "443/tcp", "8000-8010/udp")}),
        ("VOLUME /a /b", Volume, {"paths": ("/a", "/b")}),
        ('VOLUME ["/a", " /b c "]', Volume, {"paths": ("/a", "/b c")}),
        ("STOPSIGNAL SIGKILL", Stopsignal, {"signal": "SIGKILL"}),
        ("MAINTAINER A B <a@b>", Maintainer, {"name": "A B <a@b>"}),
        ("HEALTHCHECK NONE", Healthcheck, {"health": Health(disabled=True)}),
        ("HEALTHCHECK --interval=5m --timeout=3s \\\n  CMD curl -f http://localhost/ || exit 1",
         Healthcheck, {"health": Health(interval=300 * 10**6, timeout=3 * 10**6),
                       "command": ("CMD-SHELL", "curl -f http://localhost/ || exit 1")}),
        ('healthcheck --retries=5 --start-period=1s --start-interval=100ms cmd ["a", "b"]', Healthcheck,
         {"health": Health(retries=5, start_period=10**6, start_interval=10**5),
          "command": ("CMD", "a", "b")}),
    ],
)  # fmt: skip
def test_instructions(text: str, kind: type, wanted: dict[str, Any]) -> None:
    found = one(text)
    assert type(found) is kind
    assert fields(found) == wanted


def test_what_each_instruction_has() -> None:
    found = one("  run a \\\n# comment\n  b")
    assert (found.file, found.line, found.column, found.last_line) == ("C", 2, 3, 4)
    assert (found.text, found.escape) == ("RUN a   b", "\\")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a", ("a", "", "")),
        ("FROM a:1@sha256:0 as Build", ("a:1@sha256:0", "build", "")),
        ("FROM --platform=$BUILDPLATFORM a AS b-1.c_d", ("a", "b-1.c_d", "$BUILDPLATFORM")),
        ("FROM ${a:-b}", ("${a:-b}", "", "")),
        ('FROM "a"', ('"a"', "", "")),
        ("FROM a AS platform-arm/v7", ("a", "platform-arm/v7", "")),
        ("FROM --platform= a", ("a", "", "")),
    ],
)
def test_from(text: str, wanted: tuple[str, str, str]) -> None:
    start = parse(text).stages[0].start
    assert isinstance(start, From)
    assert (start.image, start.name, start.platform) == wanted


def test_the_whole_file() -> None:
    found = parse("# syntax=docker/dockerfile:1\nARG a\nARG b=c\nFROM x\nRUN y\nFROM z\n")
    assert [arg.pairs for arg in found.arguments] == [(("a", None),), (("b", "c"),)]
    assert [len(stage.instructions) for stage in found.stages] == [1, 0]
    assert (found.syntax, found.escape, found.warnings) == ("docker/dockerfile:1", "\\", ())


@pytest.mark.parametrize(
    ("text", "script", "command"),
    [
        ("RUN <<EOF\nx\nEOF", True, "<<EOF"),
        ("RUN << 'EOF'\nx\nEOF", True, "<< 'EOF'"),
        ("RUN --network=none <<-EOF\nx\nEOF", True, "<<-EOF"),
        ("RUN <<EOF bash\nx\nEOF", False, "<<EOF bash"),
        ("RUN 3<<A <<B\nx\nA\ny\nB", False, "3<<A <<B"),
        ("RUN bash", False, "bash"),
    ],
    ids=["alone", "alone with space", "alone after a flag", "with a command", "two", "none"],
)
def test_a_here_document_alone_is_a_script(text: str, script: bool, command: str) -> None:
    found = one(text)
    assert (found.script, found.command) == (script, (command,))


def test_here_documents_are_no_sources() -> None:
    found = one("COPY a <<B << C d/\nb\nB\nc\nC")
    assert found.sources == ("a",)
    assert found.destination == "d/"
    assert [(one.name, one.content) for one in found.heredocs] == [("B", "b\n"), ("C", "c\n")]


def test_onbuild() -> None:
    found = one("ONBUILD COPY --from=b \\\n  <<E x\ntext\nE")
    assert isinstance(found, Onbuild)
    assert found.trigger == "COPY --from=b   <<E x\ntext\nE"
    (again,) = parser.triggers([found.trigger], "image")
    assert fields(again) == fields(found.instruction)
    assert again.file == "image (ONBUILD 1)"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("target=/a", RunMount(target="/a", read_only=True)),
        ("type=bind,src=b,dst=/a,from=c,rw", RunMount(target="/a", source="b", origin="c")),
        ("TYPE=BIND,destination=a,readwrite=false", RunMount(target="a", read_only=True)),
        ("type=bind,target=/a,z", RunMount(target="/a", read_only=True)),
        ("from=x", RunMount(target=".", origin="x", read_only=True)),
        ("type=cache,target=/a", RunMount(kind="cache", target="/a")),
        ("type=tmpfs", RunMount(kind="tmpfs", target=".")),
        ("type=cache,target=/a,id=i,sharing=LOCKED,from=f,source=s,mode=0700,uid=1,gid=2,ro",
         RunMount(kind="cache", target="/a", id="i", sharing="locked", origin="f", source="s", mode=0o700,
                  uid=1, gid=2, read_only=True)),
        ("type=tmpfs,target=/a,size=10m", RunMount(kind="tmpfs", target="/a", size=10 << 20)),
        ("type=secret,id=i", RunMount(kind="secret", id="i", read_only=True)),
        ("type=secret,target=/a/b", RunMount(kind="secret", id="b", target="/a/b", read_only=True)),
        ("type=secret,source=s,env=E,required", RunMount(kind="secret", id="s", env="E", required=True,
                                                         read_only=True)),
        ("type=secret,id=i,required=false,mode=444", RunMount(kind="secret", id="i", mode=0o444,
                                                              read_only=True)),
        ("type=ssh", RunMount(kind="ssh", id="default", read_only=True)),
        ("type=ssh,id=k,target=/s,required=true", RunMount(kind="ssh", id="k", target="/s", required=True,
                                                           read_only=True)),
        ("'\"target=/a,b\"'", RunMount(target="/a,b", read_only=True)),
    ],
)  # fmt: skip
def test_mounts(value: str, wanted: RunMount) -> None:
    assert one(f"RUN --mount={value} x").mounts == (wanted,)


@pytest.mark.parametrize(
    ("value", "what", "hint"),
    [
        ("type=cach,target=/a", "type='cach': there is no such mount", "did you mean cache?"),
        ("type=secret", "a secret needs an id=", ""),
        ("type=secret,id=a,source=b", "a secret has an id= or a source=, not both", ""),
        ("type=secret,id=a,from=b", "a mount of type secret has no from",
         "valid: env gid id mode required source target uid"),
        ("target=/a,mode=1", "a mount of type bind has no mode", "valid: from rw source target"),
        ("type=tmpfs,target=/a,size=much", "size much: not a size",
         "a number with b, k, m, g or t: 512m, 1.5g"),
        ("type=cache,target=/a,sharing=never", "sharing='never': there is no such mode",
         "valid: locked, private, shared"),
        ("type=cache,target=/a,uid=x", "uid='x': must be from 0 to 4294967294", ""),
        ("type=cache,target=/a,mode=9", "mode='9': must be a mode in octal digits, as in 0400", ""),
        ("type=cache,target=/a,mode=77777", "mode='77777': must be a mode in octal digits, as in 0400", ""),
        ("target=/a,ro=maybe", "ro='maybe': must be true or false", ""),
        ("target=/a,dst=/b", "target is given twice", ""),
        ("tarjet=/a", "unknown key 'tarjet'", "did you mean target?"),
        ("target", "'target' needs a value: target=VALUE", ""),
        ("\\\"target=/a", 'a " that is not closed', ""),
        ("\\\"target=/a\\\"b", 'a " in the middle of a field', ""),
    ],
)  # fmt: skip
def test_wrong_mounts(value: str, what: str, hint: str) -> None:
    message, advice = error(f"FROM x\nRUN true \\\n --x\nRUN --network=none --mount={value} y")
    assert (message, advice) == (f"C:4:20: --mount: {what}", hint)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("FROM a\nRUNN x", "C:2:1: unknown instruction 'RUNN'", "did you mean RUN?"),
        ("FROM a\n  COPPY x y", "C:2:3: unknown instruction 'COPPY'", "did you mean COPY?"),
        ("RUN x\nFROM a", "C:1:1: RUN before the first FROM", "only ARG may stand there"),
        ("ARG a", "C:1:1: no FROM in this file", ""),
        ("FROM a\nRUN", "C:2:1: RUN needs an argument",
         'RUN ["program", "argument"], or a shell command'),
        ("FROM a\nRUN --network=none", "C:2:1: RUN needs an argument",
         'RUN ["program", "argument"], or a shell command'),
        ("FROM a\nRUN []", "C:2:5: RUN needs a command", 'RUN ["program", "argument"], or a shell command'),
        ('FROM a\nRUN [""]', "C:2:5: RUN needs a command",
         'RUN ["program", "argument"], or a shell command'),
        ("FROM a\nCMD [1]", "C:2:5: CMD: the JSON form must be an array of strings", ""),
        ('FROM a\nCMD ["a\\u0000"]', "C:2:5: CMD: a string with a NUL character", ""),
        ('FROM a\nCMD ["\\udcff"]', "C:2:5: CMD: a string with a lone surrogate", ""),
        ("FROM", "C:1:1: FROM needs an argument", "FROM [--platform=OS/ARCH] IMAGE [AS NAME]"),
        ("FROM a b", "C:1:8: FROM takes an image, and perhaps a name",
         "FROM [--platform=OS/ARCH] IMAGE [AS NAME]"),
        ("FROM a at b", "C:1:8: FROM takes an image, and perhaps a name",
         "FROM [--platform=OS/ARCH] IMAGE [AS NAME]"),
        ("FROM a AS 1b", "C:1:11: '1b' is not a name for a stage", "letters, then also digits and - _ . /"),
        ("FROM a AS b$c", "C:1:11: 'b$c' is not a name for a stage", "letters, then also digits and - _ . /"),
        ("FROM --plattform=x a", "C:1:6: FROM has no flag '--plattform'", "did you mean --platform?"),
        ("FROM a\nRUN --mout=x y", "C:2:5: RUN has no flag '--mout'", "did you mean --mount?"),
        ("FROM a\nCMD --help", "C:2:5: CMD has no flag '--help'", "valid: it has none"),
        ("FROM a\nCOPY --from x y", "C:2:6: --from needs a value: --from=VALUE", ""),
        ("FROM a\nCOPY --from= x y", "C:2:6: --from needs a value: --from=VALUE", ""),
        ("FROM a\nCOPY --link=maybe x y", "C:2:6: --link='maybe': must be true or false", ""),
        ("FROM a\nCOPY --chown=a --chown=b x y", "C:2:16: --chown is given twice", ""),
        ("FROM a\nADD --from=x a b", "C:2:5: ADD has no flag '--from'",
         "valid: --checksum, --chmod, --chown, --exclude, --keep-git-dir, --link, --unpack"),
        ("FROM a\nRUN --network=bridge x", "C:2:5: --network='bridge': must be one of default, host, none",
         ""),
        ("FROM a\nRUN --security=no x", "C:2:5: --security='no': must be one of insecure, sandbox", ""),
        ("FROM a\nCOPY x", "C:2:6: COPY needs a source and a destination", "COPY SOURCE... DESTINATION"),
        ("FROM a\nCOPY [\"x\"]", "C:2:6: COPY needs a source and a destination",
         "COPY SOURCE... DESTINATION"),
        ("FROM a\nCOPY [\"x\", \"\"]", "C:2:6: COPY: an empty path", ""),
        ("FROM a\nCOPY x <<E\nE", "C:2:8: a here-document cannot be the destination", ""),
        ("FROM a\nCOPY <<E <<F\nE\nF", "C:2:10: a here-document cannot be the destination", ""),
        ("FROM a\nCOPY it's /", "C:2:8: COPY: a ' that is not closed",
         "the JSON form keeps spaces in a path"),
        ("FROM a\nENV a", "C:2:5: ENV 'a' needs a value: a=VALUE", ""),
        ("FROM a\nENV a=b c", "C:2:9: 'c' is not KEY=VALUE", 'quotes keep spaces together: c="…"'),
        ("FROM a\nENV =b", "C:2:5: '=b' is not KEY=VALUE", 'quotes keep spaces together: KEY="…"'),
        ("FROM a\nENV a=${b", "C:2:7: ENV: a '}' is missing in ${…}", ""),
        ("FROM a\nENV a=x \\\n  b=${c^}", "C:3:5: ENV: '^' has no meaning in ${…}", ""),
        ("FROM a\nARG =b", "C:2:5: '=b' is not NAME or NAME=VALUE", ""),
        ("FROM a\nVOLUME []", "C:2:8: VOLUME: an empty path", "VOLUME PATH"),
        ('FROM a\nVOLUME [" "]', "C:2:8: VOLUME: an empty path", "VOLUME PATH"),
        ("FROM a\nSHELL bash", "C:2:7: SHELL needs the JSON form", 'SHELL ["/bin/sh", "-c"]'),
        ("FROM a\nSHELL []", "C:2:7: SHELL needs the JSON form", 'SHELL ["/bin/sh", "-c"]'),
        ("FROM a\nHEALTHCHECK curl", "C:2:13: HEALTHCHECK 'curl': must be CMD or NONE",
         "HEALTHCHECK [--interval=30s ...] CMD command, or HEALTHCHECK NONE"),
        ("FROM a\nHEALTHCHECK CMD", "C:2:13: HEALTHCHECK CMD needs a command", ""),
        ("FROM a\nHEALTHCHECK NONE x", "C:2:18: HEALTHCHECK NONE takes no argument", ""),
        ("FROM a\nHEALTHCHECK --interval=x CMD y", "C:2:13: --interval x: not a duration",
         "as in 90s, 1m30s or 10"),
        ("FROM a\nHEALTHCHECK --timeout=1us CMD y", "C:2:13: --timeout 1us: must be at least 1ms", ""),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD y", "C:2:13: --retries -1: out of range",
         "from 0 to 2147483647"),
        ("FROM a\nONBUILD", "C:2:1: ONBUILD needs an argument", "ONBUILD INSTRUCTION"),
        ("FROM a\nONBUILD FROM b", "C:2:9: FROM cannot be a trigger of ONBUILD", ""),
        ("FROM a\nONBUILD onbuild RUN b", "C:2:9: ONBUILD cannot be a trigger of ONBUILD", ""),
        ("FROM a\nONBUILD RUM b", "C:2:9: unknown instruction 'RUM'", "did you mean RUN?"),
        ("FROM a\nONBUILD COPY --x b c", "C:2:14: COPY has no flag '--x'",
         "valid: --chmod, --chown, --exclude, --from, --link, --parents"),
        ("FROM a\nONBUILD ENV a=${b", "C:2:15: ONBUILD: a '}' is missing in ${…}", ""),
        ("FROM ${a", "C:1:6: FROM: a '}' is missing in ${…}", ""),
    ],
)  # fmt: skip
def test_what_is_wrong(text: str, what: str, hint: str) -> None:
    assert error(text) == (what, hint)


def test_a_long_word_is_shortened_in_an_error() -> None:
    message, _ = error("FROM a\n" + "X" * 1000)
    assert message == f"C:2:1: unknown instruction '{'X' * 57}...'"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# syntax=example.org/mine:2\nFROM a",
         "C:1:1: syntax='example.org/mine:2' is not used: the file is read as docker/dockerfile:1"),
        ("FROM a\nRUN ['x', 'y']",
         "C:2:5: RUN is not JSON, so a shell runs it; words stand in double quotes"),
        ('FROM a\nCMD ["x" "y"]',
         "C:2:5: CMD is not JSON, so a shell runs it; words stand in double quotes"),
    ],
    ids=["syntax", "single quotes", "no comma"],
)  # fmt: skip
def test_warnings(text: str, wanted: str) -> None:
    assert parse(text).warnings == (wanted,)


@pytest.mark.parametrize(
    "syntax",
    [
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile-upstream:master",
        "docker/dockerfile:1@sha256:0",
    ],
)
def test_a_syntax_that_is_this_one(syntax: str) -> None:
    assert parse(f"# syntax={syntax}\nFROM a").warnings == ()


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["RUN a\nRUN b"], "i (ONBUILD 1):2:1: a second instruction in one trigger"),
        (["RUN a", "FROM b"], "i (ONBUILD 2):1:1: FROM cannot be a trigger of ONBUILD"),
        (["ONBUILD RUN b"], "i (ONBUILD 1):1:1: ONBUILD cannot be a trigger of ONBUILD"),
        (["RNU a"], "i (ONBUILD 1):1:1: unknown instruction 'RNU'"),
        ([""], "i (ONBUILD 1):1:1: no instruction in this file"),
    ],
    ids=["two", "from", "onbuild", "unknown", "empty"],
)
def test_wrong_triggers_of_an_image(texts: list[str], what: str) -> None:
    with pytest.raises(FileError) as caught:
        parser.triggers(texts, "i")
    assert caught.value.message == what
