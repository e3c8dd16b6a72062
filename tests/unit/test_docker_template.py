"""Go templates as users' scripts write them."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base.errors import UsageError
from sysbox.docker.template import compiled

DATA: dict[str, Any] = {
    "Name": "/web",
    "State": {"Pid": 12, "Running": True, "Rate": 1.5, "Health": None},
    "Args": ["a", "b"],
    "Empty": [],
    "Map": {"z": 1, "a": "x"},
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
    "Label": lambda key: f"<{key}>",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.State.Pid}}", "12"),
        ("{{ .State.Pid }}", "12"),
        ("pid {{.State.Pid}}!", "pid 12!"),
        ("{{.State.Running}} {{.State.Rate}}", "true 1.5"),
        ("{{.Args}} {{.Map}}", "[a b] map[a:x z:1]"),
        ("{{.State.Health}}", "<no value>"),
        ("{{json .Args}}", '["a","b"]'),
        ('{{.Name | upper | printf "%s!"}}', "/WEB!"),
        ('{{join .Args ","}}', "a,b"),
        ('{{index .Args 1}}{{index .Map "a"}}', "bx"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .Ports "80/tcp"}}{{(index . 0).HostIp}}{{end}}', "0.0.0.0"),
        ('{{.Label "k"}}', "<k>"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Empty}}full{{else}}empty{{end}}", "empty"),
        ("{{if eq .State.Pid 1}}a{{else if eq .State.Pid 12}}b{{else}}c{{end}}", "b"),
        ("{{if and .State.Running (not .Empty)}}y{{end}}", "y"),
        ("{{range .Args}}[{{.}}]{{end}}", "[a][b]"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $v := .Args}}{{if $i}}, {{end}}{{$v}}{{end}}", "a, b"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "a=x;z=1;"),
        ("{{range .Args}}{{$.Name}}{{end}}", "/web/web"),
        ("{{$x := .Name}}{{$x}}", "/web"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("a  {{- 1 -}}  b", "a1b"),
        ("a{{/* nothing */}}b", "ab"),
        ('{{printf "%5d|%-4s|%q|%v" 3 "x" "y" true}}', '    3|x   |"y"|true'),
        ('{{"a\\tb"}}{{`c\\n`}}', "a\tbc\\n"),
        ("{{len .Args}} {{slice .Name 1 3}}", "2 we"),
        ('{{lower "AB"}}{{title "ab cd"}}{{truncate "abcdef" 3}}', "abAb Cdabc"),
        ('{{range split "a:b" ":"}}{{.}};{{end}}', "a;b;"),
        ('{{println "a" 1}}', "a 1\n"),
        ("{{or .Empty .Name}}{{and 1 0}}", "/web0"),
        ("{{lt 1 2}}{{ge 1 2}}{{ne 1 2}}{{eq 1 2 1}}", "truefalsetruetrue"),
    ],
)
def test_render(template: str, text: str) -> None:
    assert compiled(template)(DATA) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{.Foo}}", 'map has no entry for key "Foo"'),
        ("{{.State.Foo}}", 'map has no entry for key "Foo"'),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{.State.Health.Foo}}", "nil data"),
        ("{{.Name", "unclosed action"),
        ('{{"a}}', "unterminated quoted string"),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{end}}", "unexpected"),
        ("{{}}", "missing value"),
        ("{{nope .Name}}", 'function "nope" not defined'),
        ("{{$x}}", "undefined variable"),
        ("{{index .Args 5}}", "out of range"),
        ("{{range .Name}}{{end}}", "can't iterate"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name | }}", "missing value"),
        ("{{.Name 1}}", "has arguments"),
        ("{{join .Args}}", "wrong number"),
        ("{{&}}", "unexpected"),
        ("{{if .Name}}" * 60, "nested too deeply"),
    ],
)
def test_errors(template: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(template)(DATA)
    assert reason in caught.value.message
    assert caught.value.message.startswith("template")


def test_a_row_as_json_has_no_methods() -> None:
    row = {"Names": "web", "ID": "1", "Label": lambda key: key}
    assert compiled("{{json .}}")(row) == '{"ID":"1","Names":"web"}'
