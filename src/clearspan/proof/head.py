"""Signed tree heads: {at, instance, root, size, version} in a JWS, small enough to pin, print or publish."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import canonical_json, parse_canonical
from clearspan.proof.encoding import hash_from_hex, parse_time, render_time, whole_number
from clearspan.proof.signing import HEAD_TYPE, PublicKey, SigningKey, sign_jws, verify_jws

HEAD_VERSION = "clearspan-head/1"


class SignedHead(NamedTuple):
    """What one installation's ledger was: its first `size` entries have this root."""

    instance: str
    size: int
    root: bytes
    at_ns: int


def sign_head(head: SignedHead, key: SigningKey) -> str:
    """The head as a compact JWS of type `clearspan-head`."""
    payload = {
        "version": HEAD_VERSION,
        "instance": head.instance,
        "size": head.size,
        "root": head.root.hex(),
        "at": render_time(head.at_ns),
    }
    return sign_jws(canonical_json(payload), key, typ=HEAD_TYPE)


def read_head(jws: str, keys: Iterable[PublicKey]) -> tuple[SignedHead, str]:
    """(head, id of the key that signed it) of a JWS that one of these keys signed. Raises InvalidProof."""
    payload, key_id = verify_jws(jws, keys, typ=HEAD_TYPE)
    value = parse_canonical(payload)
    if not isinstance(value, dict) or set(value) != {"version", "instance", "size", "root", "at"}:
        raise InvalidProof("A tree head has the members version, instance, size, root and at.")
    if value["version"] != HEAD_VERSION or not isinstance(value["instance"], str):
        raise InvalidProof(f"This is no tree head of version {HEAD_VERSION}.")
    root, size = hash_from_hex(value["root"]), whole_number(value["size"])
    return SignedHead(value["instance"], size, root, parse_time(value["at"])), key_id
