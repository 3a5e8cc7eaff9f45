"""The papers of a deletion: fetched once, in one document, and checked without asking the server again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from clearspan.model.errors import InvalidProof
from clearspan.proof.encoding import hash_from_hex
from clearspan.proof.findings import Findings
from clearspan.proof.head import SignedHead, read_head
from clearspan.proof.merkle import root_of
from clearspan.proof.receipt import check_receipt
from clearspan.proof.signing import PublicKey, parse_jwks

Json = dict[str, Any]
Get = Callable[[str], Any]
"""Path with its query → the JSON there."""

VERSION = "clearspan-papers/1"
PAGE = 200


def fetch_papers(get: Get, deletion_id: str) -> Json:
    """Receipt, public keys, signed head of this moment and the proof that joins both: one file for `clearspan verify`.

    The keys come from the same server as the receipt: who checks it should compare them with keys got another way.
    """
    told = get(f"/v1/deletions/{quote(deletion_id, safe='')}/receipt")
    keys, head = get("/v1/ledger/keys")["keys"], get("/v1/ledger/head")
    size = told["payload"]["ledger"]["size"]
    consistency = None
    if size != head["size"]:
        consistency = get("/v1/ledger/consistency?" + urlencode({"from": size, "size": head["size"]}))
    return {
        "version": VERSION,
        "receipt": told["receipt"],
        "payload": told["payload"],
        "keys": keys,
        "head": head["head"],
        "consistency": consistency,
    }


def check_papers(papers: Json, member: Json | None = None) -> Findings:
    """The points of a receipt, with its head; and that the named trace was in it. Raises InvalidProof: no keys."""
    return check_receipt(
        papers["receipt"],
        parse_jwks({"keys": papers["keys"]}),
        head=papers["head"],
        consistency=papers["consistency"],
        member=member,
    )


def check_ledger(get: Get, papers: Json) -> tuple[bool, str]:
    """Whether the entries that the server shows make the tree whose head it signed: (ok, what was seen).

    Cost: one request for each 200 entries, one hash each.
    """
    head = signed_head(papers, parse_jwks({"keys": papers["keys"]}))
    leaves: list[bytes] = []
    query: dict[str, Any] = {"limit": PAGE}
    while len(leaves) < head.size:
        page = get("/v1/ledger/entries?" + urlencode(query))
        leaves += [hash_from_hex(entry["leaf_hash"]) for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    if len(leaves) < head.size:
        return False, f"The server shows {len(leaves)} entries of the {head.size} that it signed."
    ok = root_of(leaves[: head.size]) == head.root
    return ok, f"the entries 0 to {head.size - 1} {'make' if ok else 'do not make'} the signed root {head.root.hex()}"


def signed_head(papers: Json, keys: list[PublicKey]) -> SignedHead:
    """The head in the papers. Raises InvalidProof."""
    return read_head(papers["head"], keys)[0]


def altered(papers: Json) -> Json:
    """The same papers with one character of the signed text changed: a check that takes them checks nothing."""
    head, payload, signature = papers["receipt"].split(".")
    at = len(payload) // 2
    other = "A" if payload[at] != "A" else "B"
    return papers | {"receipt": ".".join((head, payload[:at] + other + payload[at + 1 :], signature))}


def points(papers: Json, member: Json | None) -> list[tuple[str, bool, str]]:
    """(point, ok, what was seen) of everything that can be checked offline."""
    try:
        found = check_papers(papers, member)
        forged = check_papers(altered(papers))
    except InvalidProof as error:
        return [("offline: the receipt can be checked", False, error.message)]
    named = [(f"offline: {check.name.replace('_', ' ')}", check.ok, check.said) for check in found.checks]
    refused = forged.first_failure()
    return [
        *named,
        (
            "offline: a receipt with one changed character is refused",
            not forged.ok,
            "it was taken" if refused is None else refused.said,
        ),
    ]
