# SPDX-License-Identifier: Apache-2.0
"""Tables, ages, sizes and templates, as Docker prints them."""

from __future__ import annotations

import pytest

from lamina.cli.format import MissingField, ago, listing, render, table
from lamina.cli.ps import Labels
from lamina.errors import Kind, LaminaError
from lamina.image.sizes import human_size

ROW: dict[str, object] = {
    "ID": "abc",
    "Names": ["web", "db"],
    "Ports": {"8000/tcp": [{"HostPort": "80"}]},
    "Labels": {"b": "2", "a": "1"},
    "Empty": [],
    "Nothing": None,
    "Up": True,
    "Size": 3,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "abc"),
        ("id={{ .ID }}!", "id=abc!"),
        ("{{.Names}}", "[web db]"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Labels.a}}", "1"),
        ("{{json .Labels}}", '{"a":"1","b":"2"}'),
        ("{{.Names | json}}", '["web","db"]'),
        ('{{index .Labels "b"}}', "2"),
        ('{{index .Labels "none"}}', ""),
        ('{{(index (index .Ports "8000/tcp") 0).HostPort}}', "80"),
        ("{{range .Names}}<{{.}}>{{end}}", "<web><db>"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .Empty}}a{{else if .Up}}b{{else}}c{{end}}", "b"),
        ("{{with .Labels}}{{.a}}{{$.ID}}{{end}}", "1abc"),
        ('{{join .Names ","}}', "web,db"),
        ("{{.Nothing}} {{.Up}}", "<nil> true"),
        ("a {{- .ID -}} b", "aabcb"),
        ('{{printf "%-5s|%d" .ID .Size}}', "abc  |3"),
        ("{{len .Names}}{{upper .ID}}{{title .ID}}", "2ABCAbc"),
        ('{{if and .Up (eq .ID "abc")}}y{{end}}', "y"),
        ("{{/* nothing */}}{{`raw`}}", "raw"),
    ],
)
def test_template_renders_as_go_does(template: str, text: str) -> None:
    assert render(template, ROW) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{.ID",
        "{{end}}",
        "{{if .Up}}",
        "{{nope .ID}}",
        "{{.ID .ID}}",
        "{{template x}}",
        "{{range .ID}}{{end}}",
        "{{$x}}",
        "{{%}}",
        "{{(.ID}}",
        "{{.ID | 3}}",
        "{{len 3}}",
        "{{printf `%x` 1}}",
        "{{" + "(" * 200,
        "{{" + "(" * 200 + "}}",
        "{{if .Up}}" * 200,
    ],
)
def test_bad_template_is_one_usage_error(template: str) -> None:
    with pytest.raises(LaminaError) as caught:
        render(template, ROW)
    assert caught.value.kind is Kind.USAGE


def test_missing_field_lists_the_known_ones() -> None:
    with pytest.raises(MissingField) as caught:
        render("{{.Nmes}}", ROW)
    assert "'Nmes'" in str(caught.value)
    assert "Names" in caught.value.hint


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (999_900, "1MB"), (77_812_345, "77.8MB")],
)
def test_sizes_have_three_digits_in_decimal_units(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (180, "3 minutes ago"),
        (3600, "About an hour ago"),
        (7200, "2 hours ago"),
        (3 * 86400, "3 days ago"),
        (21 * 86400, "3 weeks ago"),
        (90 * 86400, "3 months ago"),
        (3 * 365 * 86400, "3 years ago"),
    ],
)
def test_ages_are_in_dockers_words(seconds: float, text: str) -> None:
    assert ago(seconds) == text


def test_table_pads_columns_but_not_the_last() -> None:
    text = table(["ID", "NAME"], [["1", "a"], ["longer-than-ten", "b"]])
    assert text.splitlines() == [
        "ID                NAME",
        "1                 a",
        "longer-than-ten   b",
    ]


def test_table_escapes_control_characters() -> None:
    assert "\x1b" not in table(["A"], [["\x1b[31mred"]])


def test_listing_formats() -> None:
    headers = {"ID": "ID", "Name": "NAME"}
    rows: list[dict[str, object]] = [{"ID": "1", "Name": "a"}, {"ID": "2", "Name": "b"}]

    def lines(text: str | None, quiet: str = "") -> list[str]:
        return list(listing(text, headers=headers, default=["ID", "Name"], rows=rows, quiet=quiet))

    assert lines(None) == ["ID        NAME\n1         a\n2         b"]
    assert lines(None, "ID") == ["1", "2"]
    assert lines("json") == ['{"ID":"1","Name":"a"}', '{"ID":"2","Name":"b"}']
    assert lines("{{.Name}}") == ["a", "b"]
    assert lines("table {{.Name}}\\t{{.ID}}") == ["NAME      ID\na         1\nb         2"]


def test_label_of_a_row_by_its_name() -> None:
    row = {"Labels": Labels.of([("b", "2,x"), ("a", "1")])}
    assert render('{{.Label "b"}}|{{.Label "none"}}|{{.Labels}}', row) == "2,x||b=2,x,a=1"
    with pytest.raises(LaminaError, match="expected one value"):
        render('{{.Labels "b"}}', row)
