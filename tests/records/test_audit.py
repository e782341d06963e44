"""The audit log tells of each change, cannot be changed by the program, and shows what was changed behind its back."""

import json

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from medfusion.__main__ import main
from medfusion.errors import RecordsError
from medfusion.records import audit, database, keys
from medfusion.records.database import session


def written(count: int) -> None:
    for number in range(1, count + 1):
        with session(writes=True) as opened:
            audit.add(opened, "reader", "case read", f"case {number}", agrees=bool(number % 2))


def behind_its_back(*statements: str) -> None:
    """As somebody with the database in hand would, triggers away."""
    with session(writes=True) as opened:
        if database.is_sqlite():
            opened.execute(text("DROP TRIGGER audit_no_update"))
            opened.execute(text("DROP TRIGGER audit_no_delete"))
        else:
            opened.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        for statement in statements:
            opened.execute(text(statement))


def test_entries_are_numbered_in_order_and_hold(home):
    written(5)
    assert audit.verify() == (5, [])
    newest = audit.entries(2)
    assert [(one.number, one.subject, one.details) for one in newest] == [
        (5, "case 5", {"agrees": True}), (4, "case 4", {"agrees": False}),
    ]  # fmt: skip
    assert newest[0].at >= newest[1].at


def test_what_is_undone_leaves_no_entry(home):
    written(1)
    with pytest.raises(ZeroDivisionError), session(writes=True) as opened:
        audit.add(opened, "reader", "case read", "case 9")
        1 / 0  # noqa: B018
    assert audit.verify() == (1, [])


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit WHERE number = 2"])
def test_the_database_itself_refuses_to_change_an_entry(home, statement):
    written(3)
    with pytest.raises((RecordsError, SQLAlchemyError)), session(writes=True) as opened:
        opened.execute(text(statement))
    assert audit.verify() == (3, [])


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE number = 3", "Entry 3 is not what was written"),
        ("UPDATE audit SET details = '{}' WHERE number = 5", "Entry 5 is not what was written"),
        ("DELETE FROM audit WHERE number = 2", "Entries 2 to 2 are missing"),
        ("DELETE FROM audit WHERE number >= 4", "The log ends at entry 3; 5 had been written"),
        ("DELETE FROM audit", "The log ends at entry 0; 5 had been written"),
    ],
)
def test_tampering_is_found_by_the_command(home, statement, found, capsys):
    written(5)
    assert main(["audit", "verify"]) == 0
    behind_its_back(statement)
    assert main(["audit", "verify", "--json"]) == 1
    told = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert any(found in fault for fault in told["faults"])


def test_a_chain_that_was_written_anew_with_another_key_does_not_hold(home, monkeypatch, tmp_path):
    written(3)
    behind_its_back("DELETE FROM audit")
    end = audit.end_path().read_bytes()
    monkeypatch.setenv("MEDFUSION_KEY_FILE", str(tmp_path / "other.key"))
    written(3)
    monkeypatch.delenv("MEDFUSION_KEY_FILE")
    assert audit.verify()[1]
    audit.end_path().write_bytes(end)
    assert audit.verify()[1]


def test_the_key_is_for_its_owner_only_and_no_other_length_counts(home):
    written(1)
    assert keys.path().stat().st_mode & 0o077 == 0
    keys.key.cache_clear()
    keys.path().write_bytes(b"short")
    with pytest.raises(RecordsError, match="is not the key of this installation"):
        audit.verify()


def test_the_newest_entries_are_listed(home, capsys):
    written(2)
    assert main(["audit", "list", "--newest", "1"]) == 0
    assert "case read: case 2" in capsys.readouterr().out


def test_an_address_that_is_none_is_told_without_its_password(home, monkeypatch):
    database.engine.cache_clear()
    for address in ("nonsense", "oracle://me:hidden@nowhere/x", "postgresql://me:hidden@127.0.0.1:1/x"):
        monkeypatch.setenv("MEDFUSION_DATABASE_URL", address)
        with pytest.raises(RecordsError) as told:
            audit.verify()
        assert "hidden" not in str(told.value)
