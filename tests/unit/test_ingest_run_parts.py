"""Bodies of runs, taken apart: what belongs to which run, and what one bad run costs."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from clearspan.ingest.run_parts import AttachmentPart, Rejection, RunOperation, read_batch, read_multipart, read_run
from clearspan.model.errors import InvalidPayload

B = b"boundary"
A = "01a2003e-4c11-7c15-9d87-0e6ac897469f"
C = "01a2003e-4c13-79da-b190-428f9a50ba37"
A_ID, C_ID = A.replace("-", ""), C.replace("-", "")


def multipart(*parts: tuple[str, Any]) -> bytes:
    out = b""
    for name, content in parts:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: application/json'
        out += b"--" + B + f"\r\n{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"
    return out + b"--" + B + b"--\r\n"


def values(operation: RunOperation) -> dict[str, Any]:
    return {name: json.loads(raw) for name, raw in operation.fields.items()}


def test_fields_in_parts_of_their_own_come_back_to_their_run() -> None:
    found = read_multipart(
        multipart(
            (f"post.{A}", {"id": A, "name": "a", "inputs": {"old": 1}}),
            (f"post.{A}.inputs", {"q": "ü"}),
            (f"post.{C}", {"name": "c"}),
            (f"patch.{A}", {"id": A, "end_time": 1}),
            (f"patch.{A}.error", "boom"),
            (f"post.{C}.outputs", {}),
        ),
        B,
    )
    assert [(each.is_update, each.run_id, values(each)) for each in found.operations] == [
        (False, A_ID, {"name": "a", "inputs": {"q": "ü"}}),
        (False, C_ID, {"name": "c", "outputs": {}}),
        (True, A_ID, {"end_time": 1, "error": "boom"}),
    ]
    assert found.rejections == []


def test_two_messages_about_one_run_stay_two() -> None:
    found = read_multipart(
        multipart((f"patch.{A}", {"n": 1}), (f"patch.{A}.outputs", {"x": 1}), (f"patch.{A}", {"n": 2})), B
    )
    assert [values(each) for each in found.operations] == [{"n": 1, "outputs": {"x": 1}}, {"n": 2}]


def test_each_kind_of_bad_part_costs_what_it_belongs_to() -> None:
    found = read_multipart(
        multipart(
            (f"post.{A}", {"id": C}),
            ("post.no-uuid", {}),
            (f"patch.{A}", b"[1]"),
            (f"patch.{A}", b"{"),
            (f"post.{C}", {"name": "good"}),
            (f"patch.{C}.outputs", {"lonely": 1}),
            ("post.01a2003e4c1379dab190428f9a50ba38", {}),
            ("post.01a2003e4c1379dab190428f9a50ba38.inputs", b"{\xff}"),
            ("post.01a2003e4c1379dab190428f9a50ba39", {}),
            ("post.01a2003e4c1379dab190428f9a50ba39.name", "x"),
            ("nonsense", {}),
            ("feedback.x", b"{"),
            (f"attachment.{A}.", b"1"),
            (f"attachment.{C}.a.b", b"1"),
            ("attachment.nobody.a", b"1"),
        ),
        B,
    )
    assert [each.run_id for each in found.operations] == [C_ID]
    assert found.attachments == [AttachmentPart(C_ID, "a.b", "application/json", b"1")]
    assert [(each.kind, each.id) for each in found.rejections] == [
        ("run", "nonsense"),
        ("feedback", "x"),
        ("attachment", A),
        ("attachment", "nobody"),
        ("run", A),
        ("run", "no-uuid"),
        ("run", A),
        ("run", A),
        ("run", C),
        ("run", "01a2003e4c1379dab190428f9a50ba38"),
        ("run", "01a2003e4c1379dab190428f9a50ba39"),
    ]
    assert all(each.reason for each in found.rejections)


def test_a_part_with_a_wrong_length_rejects_its_run_alone() -> None:
    sent = multipart((f"post.{A}", {"name": "a"}), (f"post.{A}.inputs", {"q": 1}), (f"post.{C}", {"name": "c"}))
    found = read_multipart(sent.replace(b"Content-Length: 8", b"Content-Length: 7"), B)
    assert [each.run_id for each in found.operations] == [C_ID]
    assert found.rejections == [Rejection("run", A, "inputs: it declares 7 bytes and has 8")]


def test_a_batch_and_single_runs_are_the_same_operations() -> None:
    found = read_batch(json.dumps({"post": [{"id": A, "name": "a"}], "patch": [{"id": C_ID}, {"id": 7}, 5]}).encode())
    assert found.operations == [
        RunOperation(False, A_ID, {"name": b'"a"'}, {"name": "a"}),
        RunOperation(True, C_ID, {}, {}),
    ]
    assert [each.kind for each in found.rejections] == ["run", "run"]
    assert read_run(b'{"id": "%s"}' % A.encode()).operations == [RunOperation(False, A_ID, {}, {})]
    alone = read_run(b'{"error": null}', run_id=C)
    assert alone.operations == [RunOperation(True, C_ID, {"error": b"null"}, {"error": None})]
    assert read_run(b'{"id": "%s"}' % A.encode(), run_id=C).operations == []
    assert read_batch(b'{"post": null}') == read_batch(b"{}")


def test_numbers_and_text_keep_the_senders_spelling() -> None:
    raw = (
        b'{"id": "%s", "inputs": {"n": 0.10000000000000000001, "big": 123456789012345678901234567890, "u": "\\u00e9"}}'
    )
    found = read_run(raw % A.encode()).operations[0]
    assert found.fields["inputs"] == raw[raw.index(b'{"n"') : -1]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"post": {}}', b"[]", b"nul"])
def test_what_is_no_batch_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        read_batch(body)


def test_attachments_inside_of_a_run() -> None:
    attached = {"a": ["text/plain", b64encode(b"hello").decode()], "b": ["text/plain", "*"], "c": 5, "": ["a/b", ""]}
    found = read_run(json.dumps({"id": A, "attachments": attached}).encode())
    assert found.attachments == [AttachmentPart(A_ID, "a", "text/plain", b"hello")]
    assert [each.kind for each in found.rejections] == ["attachment"] * 3
    assert found.operations == [RunOperation(False, A_ID, {})]
    for nothing in ("null", "{}"):
        found = read_run(f'{{"id": "{A}", "attachments": {nothing}}}'.encode())
        assert found == ([RunOperation(False, A_ID, {})], [], [], [])


@pytest.mark.parametrize(
    ("main", "field", "values"),
    [
        (b'{"id": "%s", "n": 1.5, "n": 2}', b'{"q": "\xc3\xbc"}', {"n": 2, "inputs": {"q": "ü"}}),
        (b'{"id": "%s", "n": 1}', b"1e999", None),
        (b'{"id": "%s", "n": 1e999}', b"{}", None),
        (b'{"id": "%s", "n": "\\ud800"}', b"{}", None),
        (b'{"id": "%s", "attach\\u006dents": {}}', b"{}", None),
    ],
)
def test_values_are_those_of_the_texts_or_left_for_later(
    main: bytes, field: bytes, values: dict[str, Any] | None
) -> None:
    """What cannot be decoded is still JSON, and whoever reads the values says what is wrong with it."""
    found = read_multipart(multipart((f"post.{A}", main % A.encode()), (f"post.{A}.inputs", field)), B)
    assert found.rejections == []
    [operation] = found.operations
    assert operation.values == values
    assert operation.fields["inputs"] == field
    if values is not None:
        assert {name: json.loads(raw) for name, raw in operation.fields.items()} == values


QUESTIONS = rb'["\\ud800 is text","\uD83D\uDE00","\ud800\ud83d\ude00"]'
LONE = rb'{"id":"%b","name":"half \ud83d","\udc00":1,"inputs":{"q":' + QUESTIONS + b"}}"
MENDED = {"name": "half �", "�": 1, "inputs": {"q": ["\\ud800 is text", "😀", "�😀"]}}


def test_half_characters_of_javascript_cost_nothing_else() -> None:
    """`JSON.stringify` writes a lone surrogate as an escape that no strict decoder takes."""
    run = LONE % A.encode()
    parts = (f"post.{A}", run), (f"post.{A}.outputs", rb'{"a":"\udfff."}'), (f"post.{C}", {"n": 1})
    several = read_multipart(multipart(*parts), B)
    batch = read_batch(b'{"post":[%b],"patch":[{"id":"%b","n":1}]}' % (run, C.encode()))
    for found in (read_run(run), batch, several):
        assert found.rejections == []
        assert {name: values(found.operations[0])[name] for name in MENDED} == MENDED
    assert [values(each) for each in several.operations] == [MENDED | {"outputs": {"a": "�."}}, {"n": 1}]
    assert values(batch.operations[1]) == {"n": 1}
    for bad in (b'{"id":"\\ud800', b'"\\ud80"', b'{"a":"\xed\xa0\x80"}'):
        with pytest.raises(InvalidPayload):
            read_run(bad)
