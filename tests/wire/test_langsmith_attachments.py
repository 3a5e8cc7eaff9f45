"""Links to attachments: they work without a key, for one file, for a while, and not for a trace that is gone."""

from __future__ import annotations

from langsmith_requests import ROOTS, multipart, rows, run, run_id
from native import hold

from clearspan.api.langsmith.attachments import AttachmentLink, attachment_url, open_token, sign
from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire

DATA = bytes(range(256)) * 9000  # more than two pieces


def upload(wire: Wire, name: str = "a.png") -> str:
    """Store a run with an attachment; the link to it."""
    parts = (f"post.{run_id(1)}", run(1)), (f"attachment.{run_id(1)}.{name}", DATA)
    body, headers = multipart(*parts, kind="image/png")
    assert wire.post("/runs/multipart", body, headers=headers).json()["attachments_accepted"] == 1
    (found,) = rows(wire, run_id(1))
    return attachment_url(
        wire.services, found.trace.project_id, None, found.trace.summary.trace_id, found.detail.span.span_id, name
    )


def test_a_link_needs_no_key_and_gives_the_file_at_both_roots(wire: Wire) -> None:
    url = upload(wire, "ä \r\n.png".replace("\r\n", ""))
    for root in ROOTS:
        answer = wire.get(root + url, key=None)
        assert (answer.status_code, answer.content) == (200, DATA)
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20.png"
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert wire.send("HEAD", root + url, key=None).content == b""


def test_a_link_ends(wire: Wire) -> None:
    url = upload(wire)
    wire.clock.advance(wire.services.settings.attachment_link_s)
    answer = wire.get(url, key=None)
    assert (answer.status_code, set(answer.json())) == (403, {"detail"})


def test_a_link_to_a_deleted_trace_answers_404_at_once(wire: Wire) -> None:
    url = upload(wire)
    assert wire.send("DELETE", f"/api/traces/{run_id(1).replace('-', '')}/").status_code == 200
    assert wire.get(url, key=None).status_code == 404


def test_a_link_ends_with_its_project_whatever_holds_keep(wire: Wire) -> None:
    url = upload(wire)
    (found,) = rows(wire, run_id(1))
    [project] = [each for each in wire.get("/sessions").json() if each["name"] != "default"]
    wire.ingest(wire.span("free"), key=wire.key(KeyScope.INGEST, project_ids=[found.trace.project_id]))
    hold(wire, trace_ids=[found.trace.summary.trace_id])
    answer = wire.send("DELETE", f"/sessions/{project['id']}")
    assert (answer.status_code, answer.json()["held_count"]) == (202, 1)
    assert wire.get(url, key=None).status_code == 404


def test_no_other_link_can_be_made_of_one(wire: Wire) -> None:
    url = upload(wire)
    token = url.rpartition("/")[2]
    secret = wire.catalog.tombstone_secret
    link = open_token(secret, token)
    assert link is not None
    assert open_token(secret, sign(secret, link)) == link
    forged = sign(b"x" * 32, link._replace(expires_s=link.expires_s + 1))
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(0, len(token) - 1, 7)]
    for wrong in (forged, token[:-4], token + "AAAA", "x", "%00", "A" * 5000, *changed):
        answer = wire.get(f"/attachments/{wrong}", key=None)
        assert (answer.status_code, set(answer.json())) == (404, {"detail"}), wrong
    for other in (
        AttachmentLink(link.project_id + 1, *link[1:]),
        link._replace(name="b.png"),
        link._replace(environment="prod"),
    ):
        assert wire.get(f"/attachments/{sign(secret, other)}", key=None).status_code == 404


def test_an_attachment_over_the_limit_is_rejected_and_its_run_is_not(wire: Wire) -> None:
    size_max = wire.services.settings.attachment_bytes_max
    body, headers = multipart((f"post.{run_id(1)}", run(1)), (f"attachment.{run_id(1)}.big", b"x" * (size_max + 1)))
    answer = wire.post("/runs/multipart", body, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert [(each["kind"], each["name"], each["code"]) for each in answer.json()["rejected"]] == [
        ("attachment", "big", "payload_too_large")
    ]
