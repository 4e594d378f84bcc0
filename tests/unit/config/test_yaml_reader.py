"""YAML becomes plain data with places; everything surprising is refused where it stands."""

import json
import string
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.yaml_reader import MOST_BYTES, MOST_DEPTH, read_yaml


def problems(raw: bytes) -> list[str]:
    return [str(problem) for problem in read_yaml("a.yaml", raw).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("on", "on"),
        ("yes", "yes"),
        ("tRUE", "tRUE"),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("010", "010"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("9" * 5000, "9" * 5000),
        ("0.99", 0.99),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("12:30:45", "12:30:45"),
        ("2026-12-01", "2026-12-01"),
        ("2026-12-01T18:00:00Z", "2026-12-01T18:00:00Z"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("=", "="),
    ],
)
def test_a_scalar_is_read_as_in_yaml_1_2(text, value):
    data = read_yaml("a.yaml", f"key: {text}\n".encode()).data
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_keys_are_text_however_they_look():
    assert read_yaml("a.yaml", b"{on: 1, 2: 2, null: 3, 010: 4}").data == {
        "on": 1,
        "2": 2,
        "null": 3,
        "010": 4,
    }


def test_every_value_and_key_knows_its_place():
    document = read_yaml("a.yaml", "ä: 1\nb:\n  - {c: [x, y]}\n".encode())
    assert document.value_positions == {
        (): (1, 1),
        ("ä",): (1, 4),
        ("b",): (3, 3),
        ("b", 0): (3, 5),
        ("b", 0, "c"): (3, 9),
        ("b", 0, "c", 0): (3, 10),
        ("b", 0, "c", 1): (3, 13),
    }
    assert document.key_positions == {("ä",): (1, 1), ("b",): (2, 1), ("b", 0, "c"): (3, 6)}


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    document = read_yaml("a.yaml", b"\xef\xbb\xbfa: 1")
    assert (document.data, document.key_positions) == ({"a": 1}, {("a",): (1, 1)})


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "a.yaml:1:1: must not be empty"),
        (b"# nothing but this\n", "a.yaml:1:1: must not be empty"),
        (b"a: 1\nb: \xff", "a.yaml:2:4: must be UTF-8; byte 0xff is not"),
        (b"\xef\xbb\xbfab\xc3", "a.yaml:1:3: must be UTF-8; byte 0xc3 is not"),
        (b"\xff\xfea\x00", "a.yaml:1:1: must be UTF-8; byte 0xff is not"),
        (b"a: 1\nb: \x00", "a.yaml:2:4: must be text; U+0000 is not"),
        (b"a: \x1b[31m", "a.yaml:1:4: must be text; U+001B is not"),
        (b"a: &x 1", "a.yaml:1:4: a: anchors (&x) are not allowed"),
        (b"a: !!python/name:os.system x", "a.yaml:1:4: a: tags (!!python/name:os.system) are not"),
        (b"a: !foo x", "a.yaml:1:4: a: tags (!foo) are not allowed"),
        (b"a: ! x", "a.yaml:1:4: a: tags (!) are not allowed"),
        (b"a: {{ x }}", "a.yaml:1:5: a: keys must be text"),
        (b"? [1, 2]\n: x", "a.yaml:1:3: keys must be text"),
        (b"a: 1\n---\nb: 2", "a.yaml:2:1: must be one document"),
        (b"a: [1,\nb: 2", "a.yaml:2:5: expected ',' or ']', but got '<stream end>' while parsing"),
        (b"a:\n\t- x", "a.yaml:2:1: found character '\\t' that cannot start any token"),
        (b'a: "\\UFFFFFFFF"', "a.yaml:1:7: an escape or a directive is not YAML"),
        (b"%YAML 1." + b"1" * 5000 + b"\n--- a", "a.yaml:1:9: an escape or a directive is not"),
        (b'a: "\\ud800"', "a.yaml:1:4: a: must not hold a NUL or half a surrogate pair"),
        (b'a: "\\0"', "a.yaml:1:4: a: must not hold a NUL or half a surrogate pair"),
        (b"a: " + b"x" * MOST_BYTES, "a.yaml: must be at most 1 MiB"),
        (b"[" + b"1," * 20_000 + b"]", "a.yaml:1:40000: must be at most 20000 values and keys"),
        (b"[" * 41, "a.yaml:1:41: must be at most 40 levels deep"),
        (b"- " * 42, "a.yaml:1:83: must be at most 40 levels deep"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_what_is_no_good_is_refused_where_it_stands(raw, said):
    document = read_yaml("a.yaml", raw)
    assert str(document.problems[0]).startswith(said)
    assert not document.complete


def test_aliases_and_merge_keys_are_refused_all_at_once():
    assert problems(b"a: &x {}\nb: *x\nc:\n  <<: *x\n*x : d\n") == [
        "a.yaml:1:4: a: anchors (&x) are not allowed",
        "a.yaml:2:4: b: aliases (*x) are not allowed",
        "a.yaml:4:3: c: merge keys (<<) are not allowed",
        "a.yaml:4:7: c.<<: aliases (*x) are not allowed",
        "a.yaml:5:1: ?: aliases (*x) are not allowed",
    ]


def test_a_quoted_merge_key_is_a_key():
    assert read_yaml("a.yaml", b"'<<': 1").data == {"<<": 1}


def test_a_duplicate_key_names_the_line_of_the_first_and_the_rest_is_read():
    document = read_yaml("a.yaml", b"a: 1\nb: {c: 1, c: 2}\na: 3\n\na: 4\n")
    assert [str(problem) for problem in document.problems] == [
        "a.yaml:2:11: b: duplicate key 'c', first at line 2",
        "a.yaml:3:1: duplicate key 'a', first at line 1",
        "a.yaml:5:1: duplicate key 'a', first at line 1",
    ]
    assert document.complete


def test_depth_is_allowed_up_to_the_limit():
    deep = b"[" * MOST_DEPTH + b"]" * MOST_DEPTH
    assert problems(deep) == []


@pytest.mark.parametrize("raw", [b"[" * 5000, b"[\n" * 5000, b"{a: " * 5000, b"- " * 5000])
def test_five_thousand_levels_are_refused_in_under_a_second(raw):
    began = time.monotonic()
    assert "must be at most 40 levels deep" in problems(raw)[0]
    assert time.monotonic() - began < 1


def test_a_problem_stays_on_its_line_whatever_it_quotes():
    problem = Problem("a\n.yaml", 1, 2, "b\x1b[31m", "c\r\ud800")
    assert str(problem) == "a\\n.yaml:1:2: b\\x1b[31m: c\\r\\ud800"


@given(st.binary() | st.text(string.printable + "äß\u2028").map(str.encode))
def test_no_bytes_raise(raw):
    document = read_yaml("a.yaml", raw)
    assert document.complete or document.problems


SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text()
DATA = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=50), inner),
    max_leaves=20,
)


@given(DATA)
def test_what_json_can_say_comes_back(data):
    # JSON escapes what YAML would not have in a file; YAML wants keys below 1024 characters.
    document = read_yaml("a.yaml", json.dumps(data).encode())
    if not document.problems:
        assert document.data == data
    else:
        assert "surrogate" in document.problems[0].text


@given(st.text("abc: -[]{}&*!|>'\"%@`,?#\n0123<~"))
def test_what_is_accepted_is_what_pyyaml_sees_but_for_the_scalars(text):
    document = read_yaml("a.yaml", text.encode())
    if not document.problems:
        seen = yaml.load(text, yaml.BaseLoader)
        assert _shape(document.data) == _shape(seen)


def _shape(data):
    match data:
        case dict():
            return {key: _shape(value) for key, value in data.items()}
        case list():
            return [_shape(item) for item in data]
    return "scalar"
