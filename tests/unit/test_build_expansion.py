"""Variables: Dockerfile reference, "Environment replacement", "ARG", "ENV"."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.build import expansion, parser
from sysbox.build.errors import FileError
from sysbox.build.model import Add, Copy, Env, Instruction, Plan, Run, Variables, Workdir
from sysbox.build.variables import ExpansionError, check, expand

CHECKSUM = "must be sha256: and 64 hexadecimal digits, or a git commit"
VALUES = {
    "foo": "bar",
    "empty": "",
    "str": "foobarbaz",
    "path": "/usr/local/bin",
    "n1": "x",
    "star": "a*b?c",
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hello", "hello"), ("$foo", "bar"), ("${foo}", "bar"), ("${foo}_bar", "bar_bar"),
        ("$foo_bar", ""), ("a$foo/b", "abar/b"), ("$unset", ""), ("$", "$"), ("a$", "a$"), ("$ a", "$ a"),
        ("$(id)", "$(id)"), ("$1x", "x"), ("$$x", "x"), ("$n1", "x"), ("$foo$foo", "barbar"),
        # quotes
        ("'$foo'", "$foo"), ('"$foo"', "bar"), ("\"a'b\"", "a'b"), ("'a\"b'", 'a"b'), ("a'b'c", "abc"),
        ('""', ""), ("'a\\'", "a\\"),
        # escapes
        ("\\$foo", "$foo"), ("\\${foo}", "${foo}"), ("a\\ b", "a b"), ("\\\\$foo", "\\bar"), ("\\a", "a"),
        ('"\\$foo"', "$foo"), ('"\\a"', "\\a"), ('"\\""', '"'), ('"\\\\"', "\\"), ("a\\", "a"),
        ("\\'a", "'a"), ('\\"a', '"a'),
        # defaults
        ("${foo:-word}", "bar"), ("${unset:-word}", "word"), ("${empty:-word}", "word"),
        ("${foo-word}", "bar"), ("${unset-word}", "word"), ("${empty-word}", ""),
        ("${foo:+word}", "word"), ("${unset:+word}", ""), ("${empty:+word}", ""),
        ("${foo+word}", "word"), ("${unset+word}", ""), ("${empty+word}", "word"),
        ("${foo:?no}", "bar"), ("${empty?no}", ""), ("${unset:-}", ""), ("${unset-}", ""),
        ("${unset:-$foo}", "bar"), ("${unset:-${empty:-${foo}}}", "bar"), ("${unset:-a b}", "a b"),
        ("${unset:-'a}b'}", "a}b"), ('${unset:-"$foo}"}', "bar}"), ("${unset:-a\\}b}", "a}b"),
        ("${foo:+a${foo}b}c", "abarbc"), ("${unset:-:-}", ":-"),
        # patterns: the reference's own examples first
        ("${str#f*b}", "arbaz"), ("${str##f*b}", "az"), ("${str%b*}", "foobar"), ("${str%%b*}", "foo"),
        ("${str/ba/fo}", "fooforbaz"), ("${str//ba/fo}", "fooforfoz"),
        ("${str#x}", "foobarbaz"), ("${str#foobarbaz}", ""), ("${str##*}", ""), ("${str#*}", "foobarbaz"),
        ("${str%%*}", ""), ("${str%*}", "foobarbaz"), ("${path##*/}", "bin"), ("${path%/*}", "/usr/local"),
        ("${path#*/}", "usr/local/bin"), ("${path%%/*}", ""), ("${str#???}", "barbaz"),
        ("${str%?a?}", "foobar"), ("${str#*b?r}", "baz"), ("${str##*b?}", "z"), ("${star#a\\*b}", "?c"),
        ("${star%\\?c}", "a*b"), ("${star/\\*/+}", "a+b?c"), ("${path/\\/usr\\//}", "local/bin"),
        ("${path//\\//_}", "_usr_local_bin"), ("${str/b*z/x}", "foox"), ("${str//b?/-}", "foo-r-z"),
        ("${str/o*/}", "f"), ("${str/nothing/x}", "foobarbaz"), ("${str//\\//x}", "foobarbaz"),
        ("${str/*/all}", "all"), ("${unset#a}", ""), ("${unset/a/b}", ""), ("${empty/*/b}", ""),
        ("${str#$foo}", "foobarbaz"), ("${str/$foo/$n1}", "fooxbaz"), ("${str//o/}", "fbarbaz"),
        ("${str/bar/a\\}b}", "fooa}bbaz"), ("${str//a/aa}", "foobaarbaaz"), ("${str#'foo'}", "barbaz"),
    ],
)  # fmt: skip
def test_replaced(text: str, wanted: str) -> None:
    assert expand(text, VALUES, "\\") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("`$foo", "$foo"), ("c:\\$foo", "c:\\bar"), ('"`$foo`""', '$foo"'), ("a` b", "a b"),
        ("${unset:-a`}b}", "a}b"),
    ],
)  # fmt: skip
def test_another_escape_character(text: str, wanted: str) -> None:
    assert expand(text, VALUES, "`") == wanted


def test_quotes_may_be_ordinary() -> None:
    assert (
        expand('it\'s "$foo" \\$foo \\\\ a\\b', VALUES, "\\", quotes=False)
        == 'it\'s "bar" $foo \\ ab'
    )


@pytest.mark.parametrize(
    ("text", "offset", "what"),
    [
        ("a'b", 1, "a ' that is not closed"),
        ('ab"c', 2, 'a " that is not closed'),
        ("a${foo", 1, "a '}' is missing in ${…}"),
        ("${", 0, "a '}' is missing in ${…}"),
        ("${foo:-x", 7, "a '}' is missing in ${…}"),
        ("${}", 0, "${…} needs the name of a variable"),
        ("${{foo}}", 0, "${…} needs the name of a variable"),
        ("${:-x}", 0, "${…} needs the name of a variable"),
        ("${foo:x}", 0, "':x' has no meaning in ${…}"),
        ("${foo:}", 0, "':}' has no meaning in ${…}"),
        ("${foo^}", 0, "'^' has no meaning in ${…}"),
        ("${foo:#x}", 0, "':#' has no meaning in ${…}"),
        ("${foo/a}", 6, "a '/' is missing in ${…}"),
        ("${foo bar}", 0, "' ' has no meaning in ${…}"),
        ("x${unset:?}", 1, "unset: must be set"),
        ("${empty:?give it}", 0, "empty: give it"),
        ("${unset?say $foo}", 0, "unset: say bar"),
    ],
)
def test_refused(text: str, offset: int, what: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(text, VALUES, "\\")
    assert (caught.value.offset, str(caught.value)) == (offset, what)


def test_bounds() -> None:
    with pytest.raises(ExpansionError, match="nested too deeply"):
        expand("${a:-" * 1000 + "}" * 1000, {}, "\\")
    with pytest.raises(ExpansionError, match="expands to more than"):
        expand("$a" * 100, {"a": "x" * 100_000}, "\\")
    with pytest.raises(ExpansionError, match="expands to more than"):
        expand("${a//x/" + "y" * 1000 + "}", {"a": "x" * 100_000}, "\\")
    with pytest.raises(ExpansionError, match="a pattern of more than 256 characters"):
        expand("${a#" + "*x" * 200 + "}", {"a": "x"}, "\\")
    # what would take a regular expression ages
    assert expand("${a#" + "*x" * 100 + "y}", {"a": "x" * 100_000}, "\\") == "x" * 100_000
    assert expand("${a%%" + "x*" * 100 + "y}", {"a": "x" * 100_000}, "\\") == "x" * 100_000


def test_names_are_found_without_values() -> None:
    assert check("$a ${b:-$c} '$d' \"${e#$f}\" \\$g ${h:?x}", "\\") == {*"abcefh"}
    assert check("it's $a", "\\", quotes=False) == {"a"}


def instruction(text: str) -> Instruction:
    return parser.parse(f"FROM x\n{text}\n".encode(), "C").stages[0].instructions[0]


def expanded(text: str, arguments: dict[str, str] | None = None, **environment: str) -> Any:
    variables = Variables(environment=environment, arguments=arguments or {})
    return expansion.expand(instruction(text), variables)


def refused(text: str, **environment: str) -> str:
    with pytest.raises(FileError) as caught:
        expanded(text, **environment)
    return caught.value.message


def test_env_before_arg() -> None:
    for environment, path in (({}, "/arg"), ({"v": "/env"}, "/env")):
        found = expanded("WORKDIR $v", {"v": "/arg"}, **environment)
        assert isinstance(found, Workdir)
        assert found.path == path


@pytest.mark.parametrize(
    ("text", "field", "wanted"),
    [
        ("COPY $a ${b}x /$a", "sources", ("A", "Bx")),
        ("COPY $a /$a", "destination", "/A"),
        ('COPY ["$a c", "/"]', "sources", ("A c",)),
        ("COPY \\$a /", "sources", ("$a",)),
        ("COPY --chown=$a:$b x /", "chown", "A:B"),
        ("COPY --chmod=$m x /", "chmod", "0755"),
        ("COPY --exclude=*.$a --exclude=$b x /", "exclude", ("*.A", "B")),
        ("ADD --checksum=sha256:$sum x /", "checksum", "sha256:" + "0" * 64),
        ("ENV x=$a y=${x:-none} $a=1", "pairs", (("x", "A"), ("y", "none"), ("A", "1"))),
        ("ENV x  $a 'b  c' \"$b\"", "pairs", (("x", "A b  c B"),)),
        ("LABEL \"com.example.v\"=\"$a b\" '$b'='$b'", "pairs", (("com.example.v", "A b"), ("$b", "$b"))),
        ("ARG x=$a y", "pairs", (("x", "A"), ("y", None))),
        ("EXPOSE $p $q/udp 80-82 80", "ports", ("1/tcp", "2/tcp", "3/udp", "80/tcp", "81/tcp", "82/tcp")),
        ("VOLUME /$a /$b", "paths", ("/A", "/B")),
        ('VOLUME ["/$a"]', "paths", ("/A",)),
        ("WORKDIR /x/$a/$unset", "path", "/x/A/"),
        ("USER $a:$b", "user", "A:B"),
        ("STOPSIGNAL $s", "signal", "SIGINT"),
        ("RUN echo $a", "command", ("echo $a",)),
        ("CMD echo $a", "command", ("echo $a",)),
        ('ENTRYPOINT ["$a"]', "command", ("$a",)),
        ("ONBUILD ENV x=$a", "trigger", "ENV x=$a"),
        ("HEALTHCHECK CMD $a", "command", ("CMD-SHELL", "$a")),
        ('SHELL ["$a"]', "command", ("$a",)),
        ("MAINTAINER $a", "name", "$a"),
    ],
)  # fmt: skip
def test_where_variables_are_replaced(text: str, field: str, wanted: object) -> None:
    values = {"a": "A", "b": "B", "m": "0755", "p": "1 2", "q": "3", "s": "SIGINT", "sum": "0" * 64}
    assert getattr(expanded(text, **values), field) == wanted


def test_ports_without_end() -> None:
    """A few kilobytes that mean billions of ports."""
    ranges = " ".join(f"{first}-65535" for first in range(1, 3000))
    assert "EXPOSE: more than 262144 ports in one instruction" in refused(f"EXPOSE {ranges}")
    assert len(expanded("EXPOSE 1-65535 1-65535/udp 1-65535/sctp").ports) == 3 * 65535


def test_mounts_are_complete_once_expanded() -> None:
    text = "RUN --mount=type=$t,target=/$a,id=$a,uid=$u,mode=$m true"
    found = instruction(text)
    assert isinstance(found, Run)
    assert (found.mounts[0].kind, found.mounts[0].target) == ("bind", ".")
    done = expanded(text, t="cache", a="c,d", u="5", m="700")
    assert isinstance(done, Run)
    (mount,) = done.mounts
    assert (mount.kind, mount.target, mount.id, mount.uid, mount.mode) == (
        "cache",
        "/c,d",
        "c,d",
        5,
        0o700,
    )


def test_here_documents_of_copy() -> None:
    text = "COPY <<-A <<'B' <<C /d/\n\t\tx '$a' \"${a}\" \\$a\nA\n\t$a\nB\n\t$a\\\\\nC"
    found = expanded(text, a="1")
    assert isinstance(found, Copy)
    assert [one.stripped() for one in found.heredocs] == ["x '1' \"1\" $a\n", "\t$a\n", "\t1\\\n"]


def test_here_documents_of_run_are_the_shells() -> None:
    found = expanded("RUN <<A\n$a\nA", a="1")
    assert isinstance(found, Run)
    assert found.heredocs[0].content == "$a\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("WORKDIR $unset", "C:2:1: WORKDIR: '$unset' is an empty path"),
        ("COPY $unset /", "C:2:1: COPY: '$unset' is an empty path"),
        ("COPY x $unset", "C:2:1: COPY: '$unset' is an empty path"),
        ("COPY --chown=a:b:c x /", "C:2:1: COPY: --chown='a:b:c': must be USER[:GROUP], names or numbers"),
        ("COPY --chmod=888 x /", "C:2:1: COPY: --chmod='888': must be up to 7777 in octal digits"),
        ("COPY --chmod=u:x x /", "C:2:1: COPY: --chmod='u:x': not a mode"),
        ("COPY --chmod=10000 x /", "C:2:1: COPY: --chmod='10000': must be up to 7777 in octal digits"),
        ("ENV $unset=x", "C:2:1: ENV: '$unset' is not the name of a variable"),
        ("LABEL \"\"=x", "C:2:1: LABEL: '\"\"': an empty name"),
        ("USER $unset", "C:2:1: USER: '' is not one user"),
        ("USER a b", "C:2:1: USER: 'a b' is not one user"),
        ("USER a:", "C:2:1: USER: 'a:' is not one user"),
        ("EXPOSE 0", "C:2:1: EXPOSE: '0' is not a port: 1 to 65535, then perhaps /tcp or /udp"),
        ("EXPOSE 65536", "C:2:1: EXPOSE: '65536' is not a port: 1 to 65535, then perhaps /tcp or /udp"),
        ("EXPOSE 9-8", "C:2:1: EXPOSE: '9-8' is not a port: 1 to 65535, then perhaps /tcp or /udp"),
        ("EXPOSE 80/icmp", "C:2:1: EXPOSE: '80/icmp': the protocol must be tcp, udp or sctp"),
        ("STOPSIGNAL $unset", "C:2:1: STOPSIGNAL: STOPSIGNAL: not a signal"),
        ("STOPSIGNAL SIGNONE", "C:2:1: STOPSIGNAL: STOPSIGNAL SIGNONE: not a signal"),
        ("RUN --mount=type=secret,id=$unset x", "C:2:1: RUN: --mount: a secret needs an id="),
        ("RUN --mount=type=$unset x", "C:2:1: RUN: --mount: type='': there is no such mount"),
        ("WORKDIR ${a:?no a}", "C:2:1: WORKDIR: a: no a"),
        ("ADD --checksum=md5:00 x /", f"C:2:1: ADD: --checksum='md5:00': {CHECKSUM}"),
    ],
)  # fmt: skip
def test_wrong_values(text: str, what: str) -> None:
    assert refused(text) == what


@pytest.mark.parametrize(
    "mode",
    ["755", "0644", "7777", "u=rwX,go=rX", "+x", "a+x", "g=u", "u+rw-x", "go-w", "=r"],
)
def test_modes(mode: str) -> None:
    found = expanded(f"COPY --chmod={mode} x /")
    assert isinstance(found, Copy)
    assert found.chmod == mode


def plan(given: dict[str, str] | None = None, inherited: dict[str, str] | None = None) -> Plan:
    return Plan(
        file="C", target=0, stages=(), images=(), given=given or {}, inherited=inherited or {}
    )


def state(text: str, made: Plan, variables: Variables | None = None) -> Variables:
    variables = variables or Variables()
    for one in parser.parse(f"FROM x\n{text}\n".encode(), "C").stages[0].instructions:
        variables = expansion.after(variables, expansion.expand(one, variables), made)
    return variables


def test_one_instruction_sees_one_state() -> None:
    """The reference's own example."""
    found = state("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc", plan())
    assert found.environment == {"abc": "bye", "def": "hello", "ghi": "bye"}


def test_the_value_of_an_arg() -> None:
    made = plan(given={"a": "given"}, inherited={"b": "global", "c": "global"})
    found = state("ARG a=default b=default c d e=default", made)
    assert found.arguments == {"a": "given", "b": "default", "c": "global", "e": "default"}
    assert found.environment == {}


def test_env_hides_arg_and_keeps_it() -> None:
    text = "ARG V\nENV V=${V:-v1.0.0}\nARG V=later\nENV W=$V"
    assert state(text, plan()).environment == {"V": "v1.0.0", "W": "v1.0.0"}
    assert state(text, plan(given={"V": "v2"})).environment == {"V": "v2", "W": "v2"}


def test_proxies_need_no_arg() -> None:
    made = plan(given={"HTTP_PROXY": "p", "no_proxy": "n", "other": "o"})
    assert expansion.proxies(made) == {"HTTP_PROXY": "p", "no_proxy": "n"}


def test_an_environment_that_no_process_could_have() -> None:
    """Doubled thirty times, a value would have 2^30 characters."""
    text = "ENV a=0123456789\n" + "ENV a=$a$a\n" * 30
    with pytest.raises(FileError, match=r"C:1[0-9]:1: ENV: a has more than 131072 characters"):
        state(text, plan())
    many = "ENV a=" + "x" * 100_000 + "\n" + "".join(f"ENV b{n}=$a\n" for n in range(40))
    with pytest.raises(FileError, match="all variables have more than 2097152 characters"):
        state(many, plan())


def test_an_env_is_still_one() -> None:
    assert isinstance(expanded("ENV a=b"), Env)
    assert isinstance(expanded("ADD a b"), Add)
