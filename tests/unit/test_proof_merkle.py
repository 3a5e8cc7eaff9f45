"""Merkle trees: the published vectors of Certificate Transparency, and every proof of every tree."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.proof.merkle import (
    EMPTY_ROOT,
    LeafNodes,
    consistency_proof,
    inclusion_at,
    inclusion_proof,
    leaf_hash,
    new_nodes,
    node_hash,
    root_at,
    root_of,
    verify_consistency,
    verify_inclusion,
)

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
VECTORS = [leaf_hash(bytes.fromhex(each)) for each in INPUTS]


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(b"leaf %d" % number) for number in range(size)]


def reference_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 9162 section 2.1.1 writes it, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(reference_root(leaves[:k]), reference_root(leaves[k:]))


def test_the_published_roots() -> None:
    assert root_of([]) == EMPTY_ROOT
    for size, root in enumerate(ROOTS, 1):
        assert root_of(VECTORS[:size]).hex() == root
        assert root_at(LeafNodes(VECTORS), size).hex() == root


@pytest.mark.parametrize("place", INCLUSION)
def test_the_published_inclusion_proofs(place: tuple[int, int]) -> None:
    index, size = place
    path = inclusion_proof(VECTORS[:size], index)
    assert [node.hex() for node in path] == INCLUSION[place]
    assert verify_inclusion(VECTORS[index], index, size, path, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize("sizes", CONSISTENCY)
def test_the_published_consistency_proofs(sizes: tuple[int, int]) -> None:
    old, new = sizes
    path = consistency_proof(VECTORS[:new], old)
    assert [node.hex() for node in path] == CONSISTENCY[sizes]
    assert verify_consistency(old, bytes.fromhex(ROOTS[old - 1]), new, bytes.fromhex(ROOTS[new - 1]), path)


def test_every_proof_of_every_tree_up_to_33_leaves() -> None:
    leaves = leaves_of(33)
    roots = [reference_root(leaves[:size]) for size in range(34)]
    nodes = LeafNodes(leaves)
    for size in range(34):
        assert root_of(leaves[:size]) == root_at(nodes, size) == roots[size]
        for index in range(size):
            path = inclusion_at(nodes, index, size)
            assert path == inclusion_proof(leaves[:size], index)
            for claimed in range(size):
                assert verify_inclusion(leaves[index], claimed, size, path, roots[size]) is (claimed == index)
        for old in range(size + 1):
            path = consistency_proof(leaves[:size], old)
            assert verify_consistency(old, roots[old], size, roots[size], path)
            for other in range(size + 1):
                if other != old:
                    assert not verify_consistency(other, roots[old], size, roots[size], path)


TREES = st.integers(1, 300).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))


@settings(max_examples=300, deadline=None)
@given(TREES, st.data())
def test_any_change_of_an_inclusion_proof_is_refused(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    leaves = leaves_of(size)
    root, path = root_of(leaves), inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, path, root)
    flip = data.draw(st.integers(0, 32 * 8 - 1))
    assert not verify_inclusion(flipped(leaves[index], flip), index, size, path, root)
    assert not verify_inclusion(leaves[index], index, size, path, flipped(root, flip))
    assert not verify_inclusion(leaves[index], index, size, [*path, root], root)
    # A size whose tree has the same shape around this leaf is no lie about the leaf; any other is refused.
    other = data.draw(st.integers(0, 600))
    if other != size and verify_inclusion(leaves[index], index, other, path, root):
        assert other > index
        assert len(inclusion_proof(leaves_of(other), index)) == len(path)
    assert not verify_inclusion(leaves[index], data.draw(st.integers(size, 700)), size, path, root)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        changed = [flipped(node, flip) if number == at else node for number, node in enumerate(path)]
        assert not verify_inclusion(leaves[index], index, size, changed, root)
        assert not verify_inclusion(leaves[index], index, size, path[:at] + path[at + 1 :], root)
        if len(path) > 1:
            assert not verify_inclusion(leaves[index], index, size, path[::-1], root)
        cut = [node[:-1] if number == at else node for number, node in enumerate(path)]
        assert not verify_inclusion(leaves[index], index, size, cut, root)


@settings(max_examples=300, deadline=None)
@given(TREES, st.data())
def test_any_change_of_a_consistency_proof_is_refused(sizes: tuple[int, int], data: st.DataObject) -> None:
    old, size = sizes[0] + 1, sizes[1]
    leaves = leaves_of(size)
    old_root, root, path = root_of(leaves[:old]), root_of(leaves), consistency_proof(leaves, old)
    assert verify_consistency(old, old_root, size, root, path)
    flip = data.draw(st.integers(0, 32 * 8 - 1))
    assert not verify_consistency(old, flipped(old_root, flip), size, root, path)
    assert not verify_consistency(old, old_root, size, flipped(root, flip), path)
    assert not verify_consistency(old, old_root, size, root, [*path, root])
    assert not verify_consistency(size + 1, old_root, size, root, path)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        changed = [flipped(node, flip) if number == at else node for number, node in enumerate(path)]
        assert not verify_consistency(old, old_root, size, root, changed)
        assert not verify_consistency(old, old_root, size, root, path[:at] + path[at + 1 :])
        if len(set(path)) > 1:
            assert not verify_consistency(old, old_root, size, root, path[::-1])
    # A history that was rewritten in one entry has no proof that fits.
    forged = [*leaves]
    forged[data.draw(st.integers(0, old - 1))] = leaf_hash(b"forged")
    assert not verify_consistency(old, old_root, size, root_of(forged), consistency_proof(forged, old))


def test_the_empty_tree_begins_every_tree() -> None:
    root = root_of(leaves_of(5))
    assert verify_consistency(0, EMPTY_ROOT, 5, root, [])
    assert not verify_consistency(0, root, 5, root, [])
    assert not verify_consistency(0, EMPTY_ROOT, 5, root, [root])
    assert verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not verify_consistency(5, root, 4, root, [])
    assert not verify_consistency(3, root, 5, root, [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 4), (4, 4)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_at(LeafNodes(leaves_of(4)), index, size)
    assert not verify_inclusion(leaf_hash(b""), index, size, [], EMPTY_ROOT)
    with pytest.raises(ValueError, match="never shrinks"):
        consistency_proof(leaves_of(4), 5)


def test_appending_stores_every_complete_subtree_once_and_looks_up_little() -> None:
    leaves = leaves_of(1000)
    known: dict[tuple[int, int], bytes] = {}
    asked = 0

    def get(level: int, index: int) -> bytes:
        nonlocal asked
        asked += 1
        return leaves[index] if level == 0 else known[level, index]

    for index, leaf in enumerate(leaves):
        for level, number, node in new_nodes(index, leaf, get):
            assert (level, number) not in known
            known[level, number] = node
    assert asked == len(known) < 1000
    whole = LeafNodes(leaves)
    assert all(node == whole.get(level, index) for (level, index), node in known.items())

    class Stored:
        def get(self, level: int, index: int) -> bytes:
            return get(level, index)

    asked = 0
    for size in range(1, 1001, 37):
        assert root_at(Stored(), size) == reference_root(leaves[:size])
        assert inclusion_at(Stored(), size // 2, size) == inclusion_proof(leaves[:size], size // 2)
    assert asked <= 28 * 3 * 10


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
