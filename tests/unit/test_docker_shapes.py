"""What a template sees of docker's types, and what JSON has of them."""

from __future__ import annotations

import pytest

from sysbox.base.errors import UsageError
from sysbox.docker import template
from sysbox.docker.json import pretty, to_json
from sysbox.docker.shapes import NULL, NullList, NullMap, Strings, Struct, listed, mapped, pointer

DATA = Struct(
    {
        "Id": "ab",
        "Labels": Strings({"a": "1"}),
        "Binds": NullList(),
        "Tmpfs": NullMap(),
        "Health": NULL,
        "HostConfig": Struct({"NanoCpus": 5}),
    }
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{{.Id}} {{.ID}}", "ab ab"),
        ("{{.HostConfig.NanoCPUs}}", "5"),
        ("{{.Labels.a}} {{.Labels.b}}", "1 <no value>"),
        ('{{index .Labels "a"}}|{{index .Labels "b"}}', "1|"),
        (
            "{{.Binds}}{{len .Binds}}{{range .Binds}}x{{else}}none{{end}}{{json .Binds}}",
            "[]0nonenull",
        ),
        ("{{.Tmpfs}}{{len .Tmpfs}}{{range .Tmpfs}}x{{end}}{{json .Tmpfs}}", "map[]0null"),
        ("{{.Health}}{{if .Health}}x{{else}}none{{end}}{{json .Health}}", "<nil>nonenull"),
        ("{{with .Health}}x{{end}}{{not .Health}}", "true"),
    ],
)
def test_templates(text: str, printed: str) -> None:
    assert template.compiled(text)(DATA) == printed


@pytest.mark.parametrize("text", ["{{.Nope}}", "{{.HostConfig.ID}}", "{{.Health.Status}}"])
def test_what_is_not_there(text: str) -> None:
    with pytest.raises(UsageError):
        template.compiled(text)(DATA)


def test_json() -> None:
    assert to_json(DATA) == (
        '{"Id":"ab","Labels":{"a":"1"},"Binds":null,"Tmpfs":null,"Health":null,"HostConfig":{"NanoCpus":5}}'
    )
    assert pretty({"a": NullList(), "b": []}) == '{\n    "a": null,\n    "b": []\n}'


def test_null_where_there_is_nothing() -> None:
    assert to_json(
        [listed(()), listed(("a",)), mapped({}), mapped({"a": 1}), pointer(None), pointer(0)]
    ) == ('[null,["a"],null,{"a":1},null,0]')
