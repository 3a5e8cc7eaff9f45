"""Merkle trees as RFC 9162 section 2.1 defines them: roots, inclusion and consistency proofs, and their checks.

Everything is over *leaf hashes* of 32 bytes. Proofs come from a `Nodes`: something that knows the hash of every
complete subtree, so that a proof costs O(log n) look-ups; a plain list of leaf hashes serves as one too, at O(n).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""
SIZE_MAX = 2**63 - 1


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of a zero byte and the data."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of a one byte and the two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Nodes(Protocol):
    """Hashes of the complete subtrees of an append-only tree."""

    def get(self, level: int, index: int) -> bytes:
        """The root over leaves index * 2^level … (index + 1) * 2^level - 1; level 0 is the leaf hash itself."""
        ...


class LeafNodes:
    """Nodes over a list of leaf hashes; computed when asked for and kept."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaves[index]
        found = self._known.get((level, index))
        if found is None:
            found = node_hash(self.get(level - 1, 2 * index), self.get(level - 1, 2 * index + 1))
            self._known[level, index] = found
        return found


def new_nodes(index: int, leaf: bytes, get: Callable[[int, int], bytes]) -> list[tuple[int, int, bytes]]:
    """The complete subtrees that adding leaf number `index` completes: (level ≥ 1, index, hash), lowest first.

    Args:
        get: as Nodes.get; asked only for subtrees completed by earlier leaves.
    Cost: at most log2(index + 1) look-ups, one on average.
    """
    made, level, node = [], 0, leaf
    while index & 1:
        node = node_hash(get(level, index - 1), node)
        level, index = level + 1, index >> 1
        made.append((level, index, node))
    return made


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaf hashes. Cost: 1 µs and, for a while, 80 bytes a leaf."""
    level, sha256 = list(leaves), hashlib.sha256
    while len(level) > 1:
        # Pairs from the left, an odd last one goes up as it is: the same tree as by splitting at powers of two.
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = above + level[-1:] if len(level) & 1 else above
    return level[0] if level else EMPTY_ROOT


def root_at(nodes: Nodes, size: int) -> bytes:
    """Root of the first `size` leaves. Cost: at most log2(size) + 1 look-ups."""
    return _range_root(nodes, 0, size)


def inclusion_at(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]): the proof that leaf `index` is in the tree of `size`. Raises ValueError for a bad index.

    Cost: O(log size) look-ups.
    """
    if not 0 <= index < size:
        raise ValueError("there is no such leaf in that tree")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(nodes, middle, end))
            end = middle
        else:
            path.append(_range_root(nodes, start, middle))
            start = middle
    return path[::-1]


def consistency_at(nodes: Nodes, old_size: int, size: int) -> list[bytes]:
    """PROOF(old_size, D[size]): the proof that the tree of `size` begins with the tree of `old_size`.

    Empty when the sizes are equal or the old tree has no leaf. Raises ValueError when old_size > size.
    Cost: O(log size) look-ups.
    """
    if not 0 <= old_size <= size:
        raise ValueError("a tree never shrinks")
    if old_size in (0, size):
        return []
    path, start, end, is_old_root = [], 0, size, True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(_range_root(nodes, middle, end))
            end = middle
        else:
            path.append(_range_root(nodes, start, middle))
            start, is_old_root = middle, False
    if not is_old_root:
        path.append(_range_root(nodes, start, end))
    return path[::-1]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """inclusion_at over a list of leaf hashes. Cost: O(n) hashes."""
    return inclusion_at(LeafNodes(leaves), index, len(leaves))


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """consistency_at over a list of leaf hashes. Cost: O(n) hashes."""
    return consistency_at(LeafNodes(leaves), old_size, len(leaves))


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that leaf hash `leaf` is number `index` in the tree of `size` with that root.

    RFC 9162 section 2.1.3.2. False for anything malformed; never raises for wrong sizes or lengths.
    """
    if not 0 <= index < size <= SIZE_MAX or not _are_hashes(leaf, root, *path):
        return False
    fn, sn, node = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and node == root


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree of `size` begins with the tree of `old_size`.

    RFC 9162 section 2.1.4.2; the empty tree is the beginning of every tree and needs an empty path.
    """
    if not 0 <= old_size <= size <= SIZE_MAX or not _are_hashes(old_root, root, *path):
        return False
    if old_size == size:
        return not path and old_root == root
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    if not path:
        return False
    whole = list(path)
    if old_size & (old_size - 1) == 0:
        whole.insert(0, old_root)
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = whole[0]
    for node in whole[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old, new = node_hash(node, old), node_hash(node, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old == old_root and new == root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(nodes: Nodes, start: int, end: int) -> bytes:
    """Root over leaves start … end - 1, where `start` is a multiple of a power of two not below the range's length."""
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(nodes.get(level, start >> level))
        start += 1 << level
    return _fold(peaks)


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Complete subtrees, largest first → the root over all of them."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def _are_hashes(*values: object) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_BYTES for value in values)
