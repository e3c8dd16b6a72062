"""The template language against Go's documentation: text/template, fmt; and what it may cost."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sysbox.base.errors import UsageError
from sysbox.cli import output
from sysbox.docker import template_functions, template_parse
from sysbox.docker.shapes import NULL, Map, Strings
from sysbox.docker.template import compiled
from sysbox.docker.template_values import go_float

DATA: dict[str, Any] = {
    "Name": "/wéb",
    "Args": ["a", "b", "c"],
    "Config": {"Labels": Strings({"a": "x"}), "ExposedPorts": Map({"80/tcp": {}})},
    "Big": 1500000.0,
    "Html": "<a href='x'>&\"",
    "N": None,
    "Nil": NULL,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        # escapes of strings and characters
        (r'{{"\u00e9"}}{{"\U0001F600"}}{{"\x41\101\a\b\f\v"}}', "é😀AA\a\b\f\v"),
        (r'{{"\xc3\xa9"}}', "é"),
        (r"{{'a'}} {{'\n'}} {{'\x41'}} {{'é'}} {{'\''}}", "97 10 65 233 39"),
        ("{{`a\nb`}}", "a\nb"),
        # numbers
        ("{{0x1F}} {{0b11}} {{0o17}} {{017}} {{1_000}} {{-3}} {{+3}}", "31 3 15 15 1000 -3 3"),
        ("{{1.5}} {{1e3}} {{1e6}} {{.Big}} {{1e-5}} {{0x1p4}} {{.5}}", "1.5 1000 1e+06 1.5e+06 1e-05 16 0.5"),
        # comments and trimming
        ("a {{- /* don't }} stop */ -}} b", "ab"),
        ("a{{/* x */}}b", "ab"),
        ("{{- 1 -}}", "1"),
        # actions
        ("{{range .Args}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}!", "a!"),
        ("{{range .Args}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}", "ac"),
        ("{{range 3}}{{range 3}}{{if .}}{{break}}{{end}}x{{end}}{{end}}", "xxx"),
        ('{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}{{template "t" 1}}', "</wéb><1>"),
        ('{{template "t"}}{{define "t"}}[{{.}}]{{end}}', "[<no value>]"),
        ('{{block "b" .Args}}{{len .}}{{end}}', "3"),
        ('{{define "x"}}{{end}}{{define "x"}}y{{end}}{{template "x"}}', "y"),
        ('{{define "n"}}{{if .}}{{.}}{{template "n" (slice . 1)}}{{end}}{{end}}{{template "n" "ab"}}',
         "abb"),
        ("{{with .N}}x{{else with .Name}}{{.}}{{end}}", "/wéb"),
        ("{{with $x := 1}}{{$x}}{{end}}{{if $y := 2}}{{$y}}{{end}}", "12"),
        ("{{$i := 5}}{{range $i = .Args}}{{end}}{{$i}}", "c"),
        ("{{range $i := .Args}}{{$i}}{{end}}", "abc"),
        ("{{printf \"%s\" .Name | len}} {{(index .Args 0) | upper}}", "5 A"),
        ("{{and}}" if False else "{{and 1 2 | or 0}}", "2"),
        # functions
        ("{{html .Html}}", "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
        ("{{js .Html}}", "\\u003Ca href\\u003D\\'x\\'\\u003E\\u0026\\\""),
        ("{{urlquery .Name \" &=\"}}", "%2Fw%C3%A9b+%26%3D"),
        ('{{js "a\\n"}}', "a\\u000A"),
        ("{{len .Name}} {{index .Name 0}} {{slice .Name 0 2}}", "5 47 /w"),
        ("{{slice .Args 1}} {{slice .Args 0 1 2}} {{slice .Name}}", "[b c] [a] /wéb"),
        ('{{split "a,b" ","}} {{split "é" ""}} {{join .Args "-"}}', "[a b] [é] a-b-c"),
        ('{{title "foo-bar b_c d1e it\'s"}}', "Foo-Bar B_c D1e It'S"),
        ('{{truncate "abc" 5}}{{truncate "abc" 2}}{{pad "a" 1 2}}{{pad "" 5 5}}|', "abcab a  |"),
        ("{{print 1 2 \"a\" 3 nil}} {{println}}", "1 2a3 <nil> \n"),
        ("{{eq 1 1}}{{eq .N nil}}{{ne .N 1}}{{eq \"a\" \"b\" \"a\"}}", "truetruetruetrue"),
        ("{{lt 1.5 2.5}}{{gt \"b\" \"a\"}}{{le 2 2}}", "truetruetrue"),
        ("{{not .N}}{{not 1}}{{or .N \"x\"}}{{and .N 1}}", "truefalsex<no value>"),
        ("{{json .Html}}", '"<a href=\'x\'>&\\""'),
        ('{{.Nil}} {{eq .Nil nil}} {{printf "%v" .Nil}} {{if .Nil}}x{{end}}', "<nil> true <nil> "),
        # <no value>
        ("{{.N}} {{.Config.Labels.missing}}", "<no value> <no value>"),
        ('[{{index .Config.Labels "missing"}}]{{index .Config.Labels "a"}}', "[]x"),
        ("{{with .Config.Labels.missing}}x{{else}}none{{end}}", "none"),
        ('{{if index .Config.ExposedPorts "81/tcp"}}x{{else}}no{{end}}', "no"),
        # printf
        ('{{printf "%d %5d|%-5d|%05d|%+d|% d" 1 2 3 -4 5 6}}', "1     2|3    |-0004|+5| 6"),
        ('{{printf "%x %X %#x %o %b %O %c %q %U" 255 255 255 8 5 8 65 65 233}}',
         "ff FF 0xff 10 101 0o10 A 'A' U+00E9"),
        ('{{printf "%s|%5s|%-5s|%.2s|%q|%x|% X" "a" "b" "c" "def" "g\\n" "hi" "hi"}}',
         'a|    b|c    |de|"g\\n"|6869|68 69'),
        ('{{printf "%f %.2f %e %g %6.1f|" 1.5 2.345 1500.0 0.1 3.14}}',
         "1.500000 2.35 1.500000e+03 0.1    3.1|"),
        ('{{printf "%t %v %v %v" true false nil .Args}}', "true false <nil> [a b c]"),
        ('{{printf "%q %d" .Args (split "a" "b")}}', '["a" "b" "c"] [%!d(string=a)]'),
        ('{{printf "%[2]s %[1]s" "a" "b"}}{{printf "%*d" 4 7}}', "b a   7"),
        ('{{printf "%d" "x"}}{{printf "%s" 5}}{{printf "%d"}}', "%!d(string=x)%!s(int=5)%!d(MISSING)"),
        ('{{printf "a" 1 "b"}}{{printf "%"}}{{printf "%z" 1}}',
         "a%!(EXTRA int=1, string=b)%!(NOVERB)%!z(int=1)"),
        ('{{printf "%[9]d" 1}}', "%!d(BADINDEX)"),
        ('{{printf "%T %T %%" 1 "a"}}', "int string %"),
        ('{{printf "%+q %#q" "é" "a"}}', '"\\u00e9" `a`'),
        ('{{printf "%v" .Config}}', "map[ExposedPorts:map[80/tcp:map[]] Labels:map[a:x]]"),
        ('{{printf "%999999999d" 1}}', "%!(BADWIDTH)1"),
        ('{{printf "%.999999999f" 1.5}}', "%!(BADPREC)1.500000"),
        ('{{len (printf "%1000000d" 1)}}', "1000000"),
        ('{{printf "%c" 55296}}{{printf "%c" -1}}', "\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_as_go(template: str, text: str) -> None:
    assert compiled(template)(DATA) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{range $a, $b, $c := .Args}}{{end}}", "too many declarations in range"),
        ("{{$a, $b := 1}}", "too many declarations"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{continue}}", "{{continue}} outside {{range}}"),
        ('{{range .Args}}{{define "x"}}{{end}}{{end}}', "unexpected {{define}}"),
        ('{{define "x"}}{{break}}{{end}}', "outside"),
        ('{{define "x"}}', "unexpected EOF"),
        ("{{define x}}{{end}}", "a quoted name is missing"),
        ('{{define "x"}}a{{end}}{{define "x"}}b{{end}}', "multiple definition"),
        ('{{template "none"}}', 'template "none" not defined'),
        ('{{block "x"}}{{end}}', "missing value for block"),
        ("{{call .Name}}", "non-function"),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{nil}}", "nil is not a command"),
        ("{{1 2}}", "can't give argument"),
        ('{{"a""b"}}', "unexpected"),
        (r'{{"\z"}}', "invalid syntax"),
        (r'{{"\ud800"}}', "no character"),
        (r'{{"\x4"}}', "invalid syntax"),
        (r'{{"\400"}}', "more than a byte"),
        ("{{'ab'}}", "malformed character constant"),
        ('{{"a\nb"}}', "unterminated quoted string"),
        ("{{1e999}}", "bad number"),
        ("{{99999999999999999999}}", "integer overflow"),
        ("{{1x}}", "bad number"),
        ("{{-}}", "bad number"),
        ("{{/* x }}", "unclosed comment"),
        ("{{/* x */ y}}", "comment ends before closing delimiter"),
        ('{{eq 1 "1"}}', "incompatible types"),
        ("{{eq 1 1.0}}", "incompatible types"),
        ("{{eq .Args 1}}", "non-comparable"),
        ("{{eq 1}}", "missing argument"),
        ("{{lt true false}}", "invalid type for comparison"),
        ("{{lt nil 1}}", "incompatible types"),
        ('{{pad "a" -1 0}}', "negative"),
        ('{{truncate "a" -1}}', "out of range"),
        ('{{slice "abc" 2 1}}', "invalid slice index"),
        ('{{slice "abc" 0 1 2}}', "too many slice indexes"),
        ("{{slice 1 0}}", "can't slice"),
        ("{{index 1 0}}", "can't index"),
        ("{{index .Args true}}", "wrong number or type"),
        ("{{range true}}{{end}}", "can't iterate"),
        ("{{range .Args}}{{else if 1}}{{end}}", "unexpected"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{.Config.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Config.Labels.a.b}}", "can't evaluate field b"),
    ],
)  # fmt: skip
def test_errors_as_go(template: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(template)(DATA)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "template",
    [
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{" + "not (" * 5000 + "1" + ")" * 5000 + "}}",
        "{{if 1}}" * 5000 + "{{end}}" * 5000,
        "{{if 0}}" + "{{else if 0}}" * 5000 + "{{end}}",
        "{{range 99999999999}}{{end}}",
        "{{range 18446744073709551615}}x{{end}}",
        "{{range 9999999}}{{range 9999999}}{{end}}{{end}}",
        '{{define "x"}}{{template "x"}}{{end}}{{template "x"}}',
        '{{define "x"}}{{range 9}}{{template "x"}}{{end}}{{end}}{{template "x"}}',
        '{{$x := "aa"}}{{range 99}}{{$x = print $x $x}}{{end}}',
        '{{$x := "aa"}}{{range 99}}{{$x = printf "%s%s" $x $x}}{{end}}',
        '{{$x := split "aa" ""}}{{range 99}}{{$x = split (join $x "aa") ""}}{{end}}',
        '{{pad "x" 999999999 999999999}}',
        '{{printf "' + "%1000000d" * 5000 + '" 1}}{{range 99}}{{printf "%1000000d" 1}}{{end}}',
        "{{" + "print 1 | " * 2 + "printf `" + "%[1]1000000v" * 500 + "`}}",
        "{{$x := printf `%1000000d` 1}}{{print" + " $x" * 5000 + "}}",
        "{{$x := printf `%1000000d` 1}}{{range 99}}{{json $x}}{{end}}",
    ],
)
def test_what_a_template_may_cost(template: str) -> None:
    """Bounded in time and memory: it runs where 256 MiB and 10 s of CPU time are all there is."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (256 << 20,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 10))\n"
        "from sysbox.docker.template import compiled\n"
        "from sysbox.base.errors import UsageError\n"
        "try:\n"
        "    compiled(sys.stdin.read())({})\n"
        "except UsageError as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=template, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    message = done.stdout.strip()
    assert "\n" not in message
    assert len(message) < 300
    assert "nested too deeply" in message or "too much text, or takes too many steps" in message


def test_every_function_is_known_to_the_parser() -> None:
    there = {*template_functions.FUNCTIONS, *template_functions._WRITERS, "and", "or"}
    assert there == template_parse.FUNCTIONS


def test_titles_of_columns_stay(capfd: pytest.CaptureFixture[str]) -> None:
    """docker's functions leave the headings as they are, and `table` needs no space behind it."""
    row = {"ID": "ab12", "Names": "web"}
    titles = {"ID": "CONTAINER ID", "Names": "NAMES"}
    form = 'table{{lower .ID}}\\t{{truncate .Names 1}}\\t{{join (split .Names "e") "-"}}\\t{{json .ID}}'
    output.print_list([row], (), headers=titles, format=form)
    head, line = capfd.readouterr().out.splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    assert head.split() == ["CONTAINER", "ID", "NAMES", "NAMES", "CONTAINER", "ID"]
    assert line.split() == ["ab12", "w", "w-b", '"ab12"']


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-0.0, "-0"), (999999.0, "999999"), (1e6, "1e+06"), (1234567.5, "1.2345675e+06"),
     (1e-4, "0.0001"), (1.5e-7, "1.5e-07"), (1e100, "1e+100"), (-2.5e21, "-2.5e+21")],
)  # fmt: skip
def test_floats(number: float, text: str) -> None:
    assert go_float(number) == text
