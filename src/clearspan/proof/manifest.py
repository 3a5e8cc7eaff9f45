"""The commitment to what a deletion removed: a Merkle root over keyed hashes of the traces' ids.

Each trace has a salt of its own, made from the deletion's manifest salt:

    trace salt = HMAC-SHA-256(manifest salt, "salt" || project_id as 8 bytes, big endian || trace_id in UTF-8)
    leaf       = SHA-256(0x00 || HMAC-SHA-256(trace salt, project_id as 8 bytes, big endian || trace_id in UTF-8))
    root       = RFC 9162 tree over the sorted leaves

A membership proof hands out one trace salt. With the manifest salt instead, its reader could try guesses of other ids
on the neighbouring leaf, which every proof contains.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clearspan.model.errors import InvalidProof
from clearspan.proof.encoding import hash_from_hex, whole_number
from clearspan.proof.keyed import hmac_sha256, keyed_sha256
from clearspan.proof.merkle import inclusion_proof, leaf_hash, root_of, verify_inclusion

SALT_BYTES_MIN = 16
PROJECT_ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a leaf lies among the sorted leaves of a manifest, and the proof of it."""

    index: int
    size: int
    path: list[bytes]


class Claim(NamedTuple):
    """ "This trace is in the manifest": what a membership file says."""

    project_id: int
    trace_id: str
    salt: bytes  # this trace's own
    membership: Membership


def manifest_leaf(salt: bytes, project_id: int, trace_id: str) -> bytes:
    """The leaf hash of one trace.

    Args:
        salt: the deletion's manifest salt, at least 16 random bytes.
        trace_id: in normal form.
    Cost: about 8 µs; `manifest_leaves` is for many.
    """
    return _leaf(trace_salt(salt, project_id, trace_id), project_id, trace_id)


def manifest_leaves(salt: bytes, traces: Iterable[tuple[int, str]]) -> Iterator[bytes]:
    """`manifest_leaf` of each (project_id, trace_id), in order. Cost: about 3 µs a trace."""
    assert len(salt) >= SALT_BYTES_MIN, "without a salt, ids could be guessed"
    salt_of = keyed_sha256(salt)
    for project_id, trace_id in traces:
        named = _named(project_id, trace_id)
        yield leaf_hash(hmac_sha256(salt_of(b"salt" + named), named))


def trace_salt(salt: bytes, project_id: int, trace_id: str) -> bytes:
    """The salt of one trace, from the deletion's manifest salt: it opens this trace's leaf and no other."""
    assert len(salt) >= SALT_BYTES_MIN, "without a salt, ids could be guessed"
    return hmac_sha256(salt, b"salt" + _named(project_id, trace_id))


def manifest_root(leaves: Iterable[bytes]) -> bytes:
    """Root over the leaf hashes, sorted: the same traces give the same root. Cost: 1 µs and 80 bytes a leaf."""
    return root_of(sorted(leaves))


def membership(leaves: Sequence[bytes], leaf: bytes) -> Membership | None:
    """The proof that `leaf` is among the *sorted* leaf hashes; None when it is not. Cost: O(n) hashes."""
    index = bisect_left(leaves, leaf)
    if index == len(leaves) or leaves[index] != leaf:
        return None
    return Membership(index, len(leaves), inclusion_proof(leaves, index))


def claim_of(leaves: Sequence[bytes], salt: bytes, project_id: int, trace_id: str) -> Claim | None:
    """The proof that a trace is in a manifest, to be handed out; None when it is not.

    Args:
        leaves: the deletion's sorted leaf hashes.
        salt: its manifest salt.
    """
    place = membership(leaves, manifest_leaf(salt, project_id, trace_id))
    return None if place is None else Claim(project_id, trace_id, trace_salt(salt, project_id, trace_id), place)


def verify_membership(claim: Claim, root: bytes, size: int) -> bool:
    """Whether the claimed trace is in the manifest of `size` leaves with that root."""
    place = claim.membership
    leaf = _leaf(claim.salt, claim.project_id, claim.trace_id)
    return place.size == size and verify_inclusion(leaf, place.index, size, place.path, root)


def render_claim(claim: Claim) -> dict[str, Any]:
    """A membership proof as JSON: what `clearspan verify --member` reads."""
    return {
        "project_id": claim.project_id,
        "trace_id": claim.trace_id,
        "salt": claim.salt.hex(),
        "leaf_index": claim.membership.index,
        "leaf_count": claim.membership.size,
        "path": [node.hex() for node in claim.membership.path],
    }


def parse_claim(value: Any) -> Claim:
    """The claim of a membership file's JSON. Raises InvalidProof for any other shape."""
    names = {"project_id", "trace_id", "salt", "leaf_index", "leaf_count", "path"}
    if not isinstance(value, dict) or set(value) != names or not isinstance(value["path"], list):
        raise InvalidProof(f"A membership proof has exactly these members: {', '.join(sorted(names))}.")
    trace_id, salt = value["trace_id"], hash_from_hex(value["salt"])
    if not isinstance(trace_id, str):
        raise InvalidProof("A membership proof names its trace as text.")
    path = [hash_from_hex(node) for node in value["path"]]
    place = Membership(whole_number(value["leaf_index"]), whole_number(value["leaf_count"]), path)
    return Claim(whole_number(value["project_id"], PROJECT_ID_MAX), trace_id, salt, place)


def _leaf(own_salt: bytes, project_id: int, trace_id: str) -> bytes:
    return leaf_hash(hmac_sha256(own_salt, _named(project_id, trace_id)))


def _named(project_id: int, trace_id: str) -> bytes:
    return project_id.to_bytes(8, "big") + trace_id.encode("utf-8", "surrogatepass")
