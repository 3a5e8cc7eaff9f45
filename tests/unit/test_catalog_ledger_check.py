"""Ledgers that were cut, reordered, edited, re-made or rolled back: found, and the first bad entry named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from clearspan.catalog import Catalog
from clearspan.catalog.check import check_ledger
from clearspan.catalog.export import export_lines
from clearspan.catalog.fsck import check_catalog
from clearspan.catalog.ledger import LedgerEntry, append
from clearspan.catalog.projects import uuid_of
from clearspan.model.errors import InvalidProof, StoreDamaged
from clearspan.proof.findings import Findings
from clearspan.proof.log import check_log
from clearspan.proof.signing import PublicKey
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.receipts import issue_receipt, receipt_payload


class Sample(NamedTuple):
    """An exported ledger of 30 deletions, three of them with a receipt, over two signing keys."""

    lines: list[bytes]
    old_key: PublicKey
    new_key: PublicKey
    early_head: str
    late_head: str
    data: bytes  # catalog.db


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    data, clock = tmp_path_factory.mktemp("ledger"), FixedClock()
    lay_catalog(data)
    with Catalog.open(data, clock=clock, ids=CountingIds()) as catalog:
        fill(catalog, range(8))
        early = catalog.signed_head()
        issue_receipt(catalog, clock.now_ns(), receipt_payload("del_a"))
        clock.advance(1)
        catalog.rotate_signing_key()
        fill(catalog, range(8, 20))
        issue_receipt(catalog, clock.now_ns(), receipt_payload("del_b"))
        fill(catalog, range(20, 30))
        issue_receipt(catalog, clock.now_ns(), receipt_payload("del_c"))
        late = catalog.signed_head()
        with catalog.database.read() as db:
            lines = list(export_lines(db))
        old, new = (each.key for each in catalog.signing_keys())
        assert catalog.checkpoint()
    return Sample(lines, old, new, early, late, (data / "catalog.db").read_bytes())


def fill(catalog: Catalog, numbers: range) -> None:
    for number in numbers:
        catalog.append_ledger("deletion", f"del_{number}", {"after": "planned", "matched": number}, step="planned")


def failures(found: Findings) -> dict[str, str]:
    return {check.name: check.said for check in found.checks if not check.ok}


def split(lines: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """(first line and keys, entries, heads and receipts)."""
    is_entry = [line.startswith(b'{"at_ns"') for line in lines]
    first, last = is_entry.index(True), len(lines) - is_entry[::-1].index(True)
    return lines[:first], lines[first:last], lines[last:]


def with_entries(sample: Sample, change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    before, entries, after = split(sample.lines)
    return [*before, *change(entries), *after]


# Exports


def test_a_genuine_export_holds_with_its_own_keys_and_with_either_key(sample: Sample) -> None:
    for keys in ([], [sample.old_key], [sample.new_key], [sample.old_key, sample.new_key]):
        for head in (None, sample.early_head, sample.late_head):
            found = check_log(sample.lines, keys=keys, head=head)
            assert failures(found) == {}
            assert found.ok
    assert [check.name for check in check_log(sample.lines, head=sample.early_head).checks] == [
        "entries", "heads", "receipts", "pinned_head",
    ]  # fmt: skip
    assert check_log([line + b"\r\n" for line in sample.lines]).ok


def test_no_key_but_yours_is_enough(sample: Sample) -> None:
    with_stranger = check_log(sample.lines, keys=[PublicKey(bytes(range(32)))])
    assert set(failures(with_stranger)) == {"heads", "receipts"}


def edited(number: int) -> Callable[[list[bytes]], list[bytes]]:
    def change(entries: list[bytes]) -> list[bytes]:
        return [
            line.replace(b'"org_id":', b'"org_id":7,"x":') if at == number else line for at, line in enumerate(entries)
        ]

    return change


def recounted(number: int) -> Callable[[list[bytes]], list[bytes]]:
    """The count in one entry replaced by another; everything else as it was."""

    def change(entries: list[bytes]) -> list[bytes]:
        value = json.loads(entries[number])
        value["body"]["matched"] = 999
        line = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        return [*entries[:number], line, *entries[number + 1 :]]

    return change


def repointed(number: int) -> Callable[[list[bytes]], list[bytes]]:
    def change(entries: list[bytes]) -> list[bytes]:
        value = json.loads(entries[number])
        value["prev_hash"] = "11" * 32
        line = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        return [*entries[:number], line, *entries[number + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edited(3), "Entry 3 cannot be read"),
        (recounted(0), "Entry 0 was changed"),
        (recounted(5), "Entry 5 was changed"),
        (recounted(17), "Entry 17 was changed"),
        (repointed(6), "Entry 6 was changed"),
        (repointed(0), "Entry 0 was changed"),
        (lambda entries: entries[:4] + entries[5:], "Entry 4 is missing"),
        (lambda entries: entries[1:], "Entry 0 is missing"),
        (lambda entries: [*entries[:4], entries[5], entries[4], *entries[6:]], "Entry 4 is missing"),
        (lambda entries: [*entries[:4], entries[3], *entries[4:]], "Entry 4 is missing"),
        (lambda entries: [*entries[:4], b"{}", *entries[4:]], "Entry 4 cannot be read"),
        (lambda entries: [*entries[:4], b"", *entries[4:]], "Entry 4 cannot be read"),
    ],
)
def test_a_changed_export_is_refused_and_the_first_bad_entry_named(
    sample: Sample, change: Callable[[list[bytes]], list[bytes]], named: str
) -> None:
    found = failures(check_log(with_entries(sample, change)))
    assert found["entries"].startswith(named)


def test_a_cut_off_end_is_found_by_its_own_heads(sample: Sample) -> None:
    for gone in (1, 2, 5):
        found = failures(check_log(with_entries(sample, lambda entries: entries[:-gone])))  # noqa: B023
        assert "Entries were taken away" in found["heads"]


def test_any_bit_of_any_entry_matters(sample: Sample) -> None:
    before, entries, after = split(sample.lines)
    for at, line in enumerate(entries):
        for place in range(0, len(line), 13):
            wrong = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
            try:
                found = check_log([*before, *entries[:at], wrong, *entries[at + 1 :], *after])
            except InvalidProof:
                continue
            assert not found.ok, (at, place)


def rebuilt(data: bytes, folder: Path, change: str) -> list[bytes]:
    """An export of a ledger made anew from changed entries, every hash right again, with the old heads and receipts."""
    folder.mkdir()
    (folder / "catalog.db").write_bytes(data)
    conn = apsw.Connection(str(folder / "catalog.db"))
    rows = conn.execute("SELECT at_ns, kind, deletion_id, body, org_id, step FROM ledger_entry ORDER BY seq").fetchall()
    for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f'DROP TRIGGER "{trigger}"')
    conn.execute("PRAGMA foreign_keys=OFF; DELETE FROM ledger_entry; DELETE FROM ledger_node").fetchall()
    conn.close()
    with Catalog.open(folder) as catalog:
        with catalog.database.write() as db:
            db.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            for at_ns, kind, deletion_id, body, org_id, step in rows:
                words = json.loads(body)
                if deletion_id == change:
                    words["matched"] = 999
                append(db, at_ns, kind, deletion_id, words, org_id=org_id, step=step)
        with catalog.database.read() as db:
            return list(export_lines(db))


def test_a_ledger_made_anew_is_refused_by_what_was_signed_before(sample: Sample, tmp_path: Path) -> None:
    same = rebuilt(sample.data, tmp_path / "same", "none")
    assert same == sample.lines, "the maker of forgeries can make a true copy"
    forged = rebuilt(sample.data, tmp_path / "forged", "del_3")
    found = failures(check_log(forged, keys=[sample.old_key]))
    assert "One of the first 8 entries was changed" in found["heads"]
    assert "entries" not in found, "in itself it is whole"
    # Its heads and receipts thrown away too: only a head that somebody kept can tell.
    naked = [line for line in forged if not line.startswith((b'{"head"', b'{"receipt"'))]
    assert "pinned_head" in failures(check_log(naked, keys=[sample.old_key], head=sample.early_head))


def test_a_rolled_back_ledger_is_found_by_a_pinned_head(sample: Sample) -> None:
    before, entries, after = split(sample.lines)
    short = [*before, *entries[:8], *(line for line in after if sample.early_head.encode() in line)]
    assert check_log(short, keys=[sample.old_key]).ok, "an older copy is in order by itself"
    found = failures(check_log(short, keys=[sample.old_key, sample.new_key], head=sample.late_head))
    assert "Entries were taken away" in found["pinned_head"]
    assert failures(check_log(short, keys=[sample.old_key], head=sample.early_head)) == {}


def test_receipts_that_are_missing_foreign_or_doubled_are_found(sample: Sample) -> None:
    is_receipt = [line.startswith(b'{"receipt"') for line in sample.lines]
    first = is_receipt.index(True)
    without = sample.lines[:first] + sample.lines[first + 1 :]
    assert "is missing" in failures(check_log(without))["receipts"]
    assert "not the one that the ledger names" in failures(check_log([*sample.lines, sample.lines[first]]))["receipts"]
    jws = json.loads(sample.lines[first])["receipt"]
    changed = json.dumps({"receipt": jws[:-10] + "AAAAAAAAAA"}).encode().replace(b" ", b"")
    found = failures(check_log([*sample.lines[:first], changed, *sample.lines[first + 1 :]]))
    assert "does not hold" in found["receipts"]


def test_a_retired_key_signs_nothing_more(sample: Sample, tmp_path: Path) -> None:
    """Whoever stole the old key can sign, but not into this history: the rotation's entry is in the way."""
    with Catalog.open(tmp_path, clock=FixedClock(), ids=CountingIds()) as catalog:
        with catalog.database.read() as db:
            stolen = catalog.signer.key(db)
        assert stolen.key_id == sample.old_key.key_id
    from clearspan.proof.head import read_head, sign_head

    head, _ = read_head(sample.late_head, [sample.new_key])
    forged = json.dumps({"head": sign_head(head, stolen)}).encode().replace(b" ", b"")
    first = [line.startswith(b'{"receipt"') for line in sample.lines].index(True)
    found = failures(check_log([*sample.lines[:first], forged, *sample.lines[first:]]))
    assert "was retired by entry" in found["heads"]


@pytest.mark.parametrize(
    "lines",
    [[], [b""], [b"{}"], [b"null"], [b'{"version":"clearspan-ledger/2","instance":"x"}'], [b"\xff"], [b"[" * 100_000]],
)
def test_what_is_no_export_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(InvalidProof):
        check_log(lines)


def test_lines_stand_in_their_order(sample: Sample) -> None:
    with pytest.raises(InvalidProof, match="after its place"):
        check_log([*sample.lines, sample.lines[1]])
    with pytest.raises(InvalidProof, match="not of a ledger"):
        check_log([*sample.lines, b'{"head":'])


def test_an_export_tells_no_private_key_and_nothing_personal(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(sample.data)
    with Catalog.open(tmp_path) as catalog, catalog.database.read() as db:
        seed = catalog.signer.key(db).seed
    whole = b"\n".join(sample.lines)
    assert seed not in whole
    assert seed.hex().encode() not in whole
    assert catalog.tombstone_secret.hex().encode() not in whole
    assert b'"d":' not in whole


# The file


@pytest.fixture
def data(tmp_path: Path, sample: Sample) -> Path:
    (tmp_path / "catalog.db").write_bytes(sample.data)
    return tmp_path


def damage(data: Path, sql: str) -> None:
    """Change the file behind the catalog's back, past its triggers."""
    conn = apsw.Connection(str(data / "catalog.db"))
    for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f'DROP TRIGGER "{trigger}"')
    conn.execute("PRAGMA foreign_keys=OFF; " + sql).fetchall()
    conn.close()


def test_a_sound_file_holds(data: Path, sample: Sample) -> None:
    before = (data / "catalog.db").read_bytes()
    assert check_ledger(data, keys=[sample.old_key], head=sample.late_head).ok
    assert (data / "catalog.db").read_bytes() == before
    assert [each.invariant for each in check_catalog(data, pages=False).violations] == []


@pytest.mark.parametrize(
    ("sql", "point", "said", "invariant"),
    [
        ("UPDATE ledger_entry SET step = 'hidden' WHERE seq = 7", "chain", "entry 7", "each ledger entry follows"),
        ("DELETE FROM ledger_entry WHERE seq = 7", "chain", "entry 7", "each ledger entry follows"),
        ("UPDATE ledger_node SET hash = zeroblob(32) WHERE level = 2 AND position = 1", "tree", "Node 1 of level 2",
         "the ledger's tree"),
        ("DELETE FROM ledger_node WHERE level = 1 AND position = 3", "tree", "Node 3 of level 1", "the ledger's tree"),
        ("INSERT INTO ledger_node VALUES (40, 0, zeroblob(32))", "tree", "nodes where", "the ledger's tree"),
        ("DELETE FROM receipt WHERE deletion_id = 'del_b'", "receipts", "del_b", "each receipt holds"),
        ("UPDATE receipt SET jws = (SELECT jws FROM receipt WHERE deletion_id = 'del_a') WHERE deletion_id = 'del_b'",
         "receipts", "del_a", "each receipt holds"),
        ("UPDATE tree_head SET jws = replace(jws, 'A', 'B') WHERE size = 8", "heads", "cannot be believed",
         "each signed head"),
        ("DELETE FROM ledger_entry WHERE seq > 30; DELETE FROM ledger_node WHERE level = 1 AND position > 14",
         "heads", "taken away", "references in the catalog"),
    ],
)  # fmt: skip
def test_a_changed_file_is_found(data: Path, sql: str, point: str, said: str, invariant: str) -> None:
    damage(data, sql)
    found = failures(check_ledger(data))
    assert said in found[point]
    assert any(each.invariant.startswith(invariant) for each in check_catalog(data, pages=False).violations)


def test_a_file_of_another_version_is_refused(data: Path) -> None:
    damage(data, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(StoreDamaged, match="another version"):
        check_ledger(data)


# From version 0001


def test_a_ledger_of_the_first_version_gets_its_tree(tmp_path: Path) -> None:
    with Catalog.open(tmp_path, ids=CountingIds()) as catalog:
        entries = [catalog.append_ledger("deletion", f"del_{number}", {"n": number}) for number in range(77)]
        root = catalog.ledger_root(77)
        catalog.checkpoint()
    downgrade(tmp_path)
    with Catalog.open(tmp_path) as upgraded:
        assert upgraded.ledger() == entries
        [project] = upgraded.projects(upgraded.first_org.id)
        assert project.uuid == uuid_of(project.public_id)
        assert upgraded.ledger_root(77) == root
        assert [each.retired_at_ns for each in upgraded.signing_keys()] == [None]
        later: LedgerEntry = upgraded.append_ledger("deletion", "del_later", {})
        assert later.prev_hash == entries[-1].entry_hash
        jws = issue_receipt(upgraded, 5, receipt_payload("del_x"))
        assert jws == upgraded.receipt("del_x")
        upgraded.signed_head()
    assert check_ledger(tmp_path).ok


def downgrade(data: Path) -> None:
    """Undo the migrations from 0002 on in a file, as if the first version had written it."""
    damage(data, "UPDATE alembic_version SET version_num = '0001'")
    conn: Any = apsw.Connection(str(data / "catalog.db"))
    for table in ("experiment", "evaluator", "dataset", "run_share", "annotation_config_project", "annotation_config"):
        conn.execute(f"DROP TABLE {table}")
    conn.execute("DROP INDEX project_uuid")
    conn.execute("DROP INDEX app_user_email")
    conn.execute("ALTER TABLE app_user DROP COLUMN email")
    conn.execute("ALTER TABLE api_key DROP COLUMN description")
    for (column,) in conn.execute("SELECT name FROM pragma_table_info('project') WHERE cid > 4").fetchall():
        conn.execute(f"ALTER TABLE project DROP COLUMN {column}")
    for table in ("receipt", "tree_head", "ledger_node", "signing_key"):
        conn.execute(f"DROP TABLE {table}")
    for column in ("max_traces", "max_share_ppm", "require_reason", "forbid_all", "strict_window"):
        conn.execute(f"ALTER TABLE api_key DROP COLUMN delete_{column}")
    for verb in ("UPDATE", "DELETE"):
        conn.execute(
            f"CREATE TRIGGER ledger_no_{verb.lower()} BEFORE {verb} ON ledger_entry "
            "BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"
        )
    conn.close()
