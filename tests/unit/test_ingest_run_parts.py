"""Bodies of runs, taken apart: what belongs to which run, and what one bad run costs."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from clearspan.ingest.langsmith import RunPiece
from clearspan.ingest.run_parts import AttachmentPart, Rejection, read_batch, read_multipart, read_run
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


def values(piece: RunPiece) -> dict[str, Any]:
    main = {} if piece.main is None else json.loads(piece.main)
    return {**main, **{name: json.loads(raw) for name, raw in piece.fields.items()}}


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
    assert [(each.op, each.run_id, values(each)) for each in found.pieces] == [
        ("create", A, {"id": A, "name": "a", "inputs": {"q": "ü"}}),
        ("create", C, {"name": "c", "outputs": {}}),
        ("update", A, {"id": A, "end_time": 1, "error": "boom"}),
    ]
    assert found.rejections == []


def test_two_messages_about_one_run_stay_two() -> None:
    found = read_multipart(
        multipart((f"patch.{A}", {"n": 1}), (f"patch.{A}.outputs", {"x": 1}), (f"patch.{A}", {"n": 2})), B
    )
    assert [values(each) for each in found.pieces] == [{"n": 1, "outputs": {"x": 1}}, {"n": 2}]


def test_each_kind_of_bad_part_costs_what_it_belongs_to() -> None:
    found = read_multipart(
        multipart(
            (f"post.{A}", {"name": "bad"}),
            (f"post.{A}.name", "x"),
            (f"post.{C}", {"name": "good"}),
            (f"patch.{C}.outputs", {"lonely": 1}),
            ("nonsense", {}),
            ("feedback.x", b"{"),
            ("feedback.y", {"key": "k"}),
            (f"attachment.{A}.", b"1"),
            (f"attachment.{C}.a.b", b"1"),
            ("attachment.nobody.a", b"1"),
        ),
        B,
    )
    assert [(each.op, each.run_id, values(each)) for each in found.pieces] == [
        ("create", C, {"name": "good"}),
        ("update", C, {"outputs": {"lonely": 1}}),
    ]
    assert found.feedback == [("y", b'{"key": "k"}')]
    assert found.attachments == [AttachmentPart(C_ID, "a.b", "application/json", b"1")]
    assert [(each.kind, each.id, each.name) for each in found.rejections] == [
        ("run", "nonsense", ""),
        ("feedback", "x", ""),
        ("attachment", A, ""),
        ("attachment", "nobody", "a"),
        ("run", A, ""),
    ]
    assert all(each.reason for each in found.rejections)


def test_a_part_with_a_wrong_length_rejects_its_run_alone() -> None:
    sent = multipart((f"post.{A}", {"name": "a"}), (f"post.{A}.inputs", {"q": 1}), (f"post.{C}", {"name": "c"}))
    found = read_multipart(sent.replace(b"Content-Length: 8", b"Content-Length: 7"), B)
    assert [each.run_id for each in found.pieces] == [C]
    assert found.rejections == [Rejection("run", A, "inputs: it declares 7 bytes and has 8")]


def test_a_batch_and_single_runs_are_the_same_pieces() -> None:
    found = read_batch(b'{"post": [{"id": "x", "n": 0.10}], "patch": [{"id": 7}, 5]}')
    assert found.pieces == [
        RunPiece("create", None, b'{"id": "x", "n": 0.10}', {}),
        RunPiece("update", None, b'{"id": 7}', {}),
        RunPiece("update", None, b"5", {}),
    ]
    assert read_run(b'{"id": "x"}').pieces == [RunPiece("create", None, b'{"id": "x"}', {})]
    assert read_run(b'{"error": null}', run_id=C).pieces == [RunPiece("update", C, b'{"error": null}', {})]
    assert read_batch(b'{"post": null}') == read_batch(b"{}")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"post": {}}', b"[]", b"nul"])
def test_what_is_no_batch_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        read_batch(body)


def test_attachments_inside_of_a_run() -> None:
    attached = {"a": ["text/plain", b64encode(b"hello").decode()], "b": ["text/plain", "*"], "c": 5, "": ["a/b", ""]}
    found = read_run(json.dumps({"id": A, "n": 1, "attachments": attached}).encode())
    assert found.attachments == [AttachmentPart(A_ID, "a", "text/plain", b"hello")]
    assert [each.kind for each in found.rejections] == ["attachment"] * 3
    assert [values(each) for each in found.pieces] == [{"id": A, "n": 1}]
    for nothing in ("null", "{}"):
        sent = f'{{"id": "{A}", "attachments": {nothing}}}'
        assert [values(each) for each in read_run(sent.encode()).pieces] == [{"id": A}]
    assert read_run(b'{"attachments": {"a": ["a/b", "eA=="]}}').rejections[0].kind == "attachment"
    assert read_run(b'{"attachments": 5}', run_id=A).rejections[0].kind == "attachment"
