"""Bodies of multipart/form-data: what clients send, what nobody should, and that one bad part costs only itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearspan.ingest import multipart
from clearspan.ingest.multipart import Part, boundary_of, split_multipart
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

B = b"0570bb2f07da4adfad2dcbbbfc07cee2"


def part(
    name: str, content: bytes, *, kind: str = "application/json", length: int | None = None, style: str = "header"
) -> bytes:
    size = len(content) if length is None else length
    head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}'
    head += {"header": f"\r\nContent-Length: {size}", "param": f"; length={size}", "none": ""}[style]
    return head.encode() + b"\r\n\r\n" + content


def body(*parts: bytes, boundary: bytes = B, end: bytes = b"--\r\n") -> bytes:
    lines = b"".join(b"--" + boundary + b"\r\n" + each + b"\r\n" for each in parts)
    return lines + b"--" + boundary + end


names = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n%'), min_size=1, max_size=20).filter(
    lambda name: name.strip() == name
)
contents = st.lists(
    st.sampled_from([b"\r\n", b"--", B, b"\r\n--", b"\r\n--" + B, b"\r\n--" + B + b"--", b"\r\n--" + B + b"\r\n", b"x"])
    | st.binary(max_size=8)
).map(b"".join)


@given(st.lists(st.tuples(names, contents, st.sampled_from(["header", "param"])), max_size=5))
def test_what_declares_its_length_may_hold_anything(parts: list[tuple[str, bytes, str]]) -> None:
    sent = body(*(part(name, content, style=style) for name, content, style in parts))
    assert split_multipart(sent, B) == [Part(name, "application/json", content) for name, content, _ in parts]


@given(st.lists(st.tuples(names, st.binary(max_size=30)), max_size=5))
def test_what_declares_none_ends_at_the_boundary(parts: list[tuple[str, bytes]]) -> None:
    sent = body(*(part(name, content, style="none") for name, content in parts))
    assert split_multipart(sent, B) == [Part(name, "application/json", content) for name, content in parts]


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_make_it_fail_otherwise_than_it_says(noise: bytes, cut: int) -> None:
    for sent in (noise, b"--" + B + b"\r\n" + noise, body(part("a", noise))[:cut], body(noise, part("b", b"1"))):
        try:
            found = split_multipart(sent, B)
        except InvalidPayload:
            continue
        assert all(isinstance(each, Part) for each in found)


def test_a_wrong_length_costs_that_part_alone() -> None:
    sent = body(part("a", b"1"), part("b", b"12345", length=4), part("c", b"12345", length=999), part("d", b"2"))
    found = split_multipart(sent, B)
    assert [(each.name, each.fault) for each in found] == [
        ("a", None),
        ("b", "it declares 4 bytes and has 5"),
        ("c", "it declares 999 bytes and has 5"),
        ("d", None),
    ]


def test_a_length_that_would_swallow_the_next_part_is_not_believed_unless_a_boundary_follows() -> None:
    inner = part("b", b"2")
    swallowed = body(part("a", b"1", length=1 + len(b"\r\n--" + B + b"\r\n" + inner)), inner, part("c", b"3"))
    found = split_multipart(swallowed, B)
    assert [each.name for each in found] == ["a", "c"]
    assert found[0].content.endswith(inner)


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b'Content-Disposition: form-data; name="x"\r\nContent-Encoding: gzip', "Content-Encoding"),
        (b"Content-Type: text/plain", "no name"),
        (b'Content-Disposition: form-data; name=""', "no name"),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Length: -1', "length cannot be read"),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: a/b; length=1\r\nContent-Length: 2', "cannot"),
        (b'Content-Disposition: form-data; name="\xff"', "UTF-8"),
        (b"", "no name"),
    ],
)
def test_a_header_that_cannot_stand_costs_that_part_alone(head: bytes, fault: str) -> None:
    found = split_multipart(body(part("a", b"1"), head + b"\r\n\r\nx", part("c", b"3")), B)
    assert [each.name for each in found if each.fault is None] == ["a", "c"]
    assert fault in str(found[1].fault)


def test_headers_are_read_however_they_are_written() -> None:
    heads = (
        b'content-disposition: form-data; name="a.b.c d"; filename="f"\r\ncontent-type: Image/PNG; x=y',
        b"CONTENT-LENGTH: 1\r\nContent-Disposition: form-data; name=a%22b\r\nX-Other: z",
        b'Content-Type: image/png;length="1"\r\nContent-Disposition: form-data; name="c"',
    )
    found = split_multipart(b"preamble\r\n" + body(*(head + b"\r\n\r\nx" for head in heads)) + b"epilogue", B)
    assert found == [Part("a.b.c d", "image/png", b"x"), Part('a"b', "", b"x"), Part("c", "image/png", b"x")]


def test_a_body_that_breaks_off_loses_its_last_part_only() -> None:
    whole = body(part("a", b"1"), part("b", b"22222"))
    for cut in range(len(body(part("a", b"1"))), len(whole) - len(b"\r\n--" + B + b"--\r\n")):
        found = split_multipart(whole[:cut], B)
        assert found[0] == Part("a", "application/json", b"1")
        assert all(each.fault for each in found[1:])
    assert split_multipart(body(part("a", b"1"), end=b"\r\n"), B)[0].fault is None


def test_a_boundary_that_begins_another_is_not_taken_for_it() -> None:
    sent = body(part("a", b"x\r\n--" + B + b"9\r\ny", style="none"))
    assert split_multipart(sent, B) == [Part("a", "application/json", b"x\r\n--" + B + b"9\r\ny")]


def test_bodies_without_their_boundary_or_with_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for sent in (b"", b"{}", body(part("a", b"1"), boundary=b"other")):
        with pytest.raises(InvalidPayload):
            split_multipart(sent, B)
    monkeypatch.setattr(multipart, "PARTS_MAX", 2)
    with pytest.raises(PayloadTooLarge):
        split_multipart(body(*[part("a", b"1")] * 3), B)


def test_the_boundary_is_read_from_the_header() -> None:
    assert boundary_of(f"multipart/form-data; boundary={B.decode()}") == B
    assert boundary_of('Multipart/Form-Data;charset=utf-8; boundary="a b"') == b"a b"
    for wrong in (
        "",
        "application/json",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
    ):
        with pytest.raises(InvalidPayload):
            boundary_of(wrong)


@pytest.mark.parametrize("names", [b"name*=a; name*0=b", b"name*" + b"0" * 5000 + b"=a"])
def test_continuations_that_do_not_fit_cost_one_part(names: bytes) -> None:
    bad = b"Content-Disposition: form-data; " + names + b"\r\n\r\n{}"
    found = split_multipart(body(part("a", b"1"), bad, part("b", b"2")), B)
    assert [(each.name, each.fault) for each in found] == [("a", None), ("", "it has no name"), ("b", None)]
