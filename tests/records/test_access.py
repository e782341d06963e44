"""Accounts: passwords as hashes only, roles that hold for every call, tries that are limited, and a log of it all."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from medfusion import access, doctor, worklist
from medfusion.__main__ import main
from medfusion.access import ADMINISTRATOR, READER, TRAINER, Person
from medfusion.errors import AccessDenied
from medfusion.records import audit
from medfusion.records.database import session
from tests.records.scans import png
from training import service

PASSWORD = "correct horse battery"


@pytest.fixture
def whom():
    """Somebody at work; it can be changed."""
    held = [access.OWNER]
    before = access._whom[0]
    access.ask_whom(lambda: held[0])
    yield held
    access.ask_whom(before)


def test_a_password_is_kept_as_a_hash_and_opens_the_account(home):
    access.keep("anna", TRAINER, PASSWORD)
    assert access.are_there_accounts()
    assert access.sign_in("anna", PASSWORD) == Person("anna", TRAINER)
    with session() as opened:
        held = opened.scalar(text("SELECT password FROM accounts"))
    assert held.startswith("$argon2id$")
    assert PASSWORD not in held


def test_a_wrong_name_and_a_wrong_password_are_told_alike(home):
    access.keep("anna", READER, PASSWORD)
    said = set()
    for name, password in (("anna", "wrong password"), ("berta", PASSWORD), ("", ""), ("x" * 300, PASSWORD)):
        with pytest.raises(AccessDenied) as told:
            access.sign_in(name, password)
        said.add(str(told.value))
    assert len(said) == 1
    assert [entry.action for entry in audit.entries(4)] == ["sign-in refused"] * 4
    assert "berta" not in repr(audit.entries())  # a password typed as a name must not be kept


def test_five_wrong_tries_close_the_account_for_a_while_even_for_the_right_password(home):
    access.keep("anna", READER, PASSWORD)
    for _ in range(access.TRIES):
        with pytest.raises(AccessDenied, match="wrong"):
            access.sign_in("anna", "wrong password")
    with pytest.raises(AccessDenied, match="Too many tries"):
        access.sign_in("anna", PASSWORD)
    with session(writes=True) as opened:
        row = opened.get(access.AccountRow, "anna")
        row.locked_until = datetime.now(UTC) - timedelta(seconds=1)
    assert access.sign_in("anna", PASSWORD).name == "anna"


@pytest.mark.parametrize(
    ("name", "role", "password", "said"),
    [
        ("an na", READER, PASSWORD, "A name has up to 64"),
        ("anna", "king", PASSWORD, "There is no role 'king'"),
        ("anna", READER, "short", "at least 10 characters"),
    ],
)
def test_accounts_that_make_no_sense_are_refused(home, name, role, password, said):
    with pytest.raises(AccessDenied, match=said):
        access.keep(name, role, password)
    assert access.list_accounts() == []


def test_an_account_of_the_identity_provider_has_no_password_that_opens_it(home):
    access.keep("anna@clinic.example", READER, None)
    with pytest.raises(AccessDenied):
        access.sign_in("anna@clinic.example", "")
    assert access.known("anna@clinic.example").role == READER
    with pytest.raises(AccessDenied, match="There is no account for you here"):
        access.known("berta@clinic.example")


def test_the_command_adds_changes_lists_and_removes(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\n"))
    assert main(["account", "add", "anna", "--role", "administrator"]) == 0
    assert main(["account", "add", "berta@clinic.example", "--oidc"]) == 0
    assert main(["account", "list"]) == 0
    assert "anna  administrator" in capsys.readouterr().out
    assert access.sign_in("anna", PASSWORD).role == ADMINISTRATOR
    assert main(["account", "remove", "anna"]) == 0
    assert main(["account", "remove", "anna"]) == 2
    assert PASSWORD not in repr(audit.entries())


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("", 0), (READER, 1), (TRAINER, 2), (ADMINISTRATOR, 3)],
)
def test_each_role_may_do_what_those_below_it_may_and_no_more(home, whom, role, allowed):
    calls = [lambda: worklist.add(png(0)), lambda: service.stop("none"), lambda: doctor.check("disk")]
    whom[0] = Person("anna", role)
    for number, call in enumerate(calls):
        if number >= allowed:
            with pytest.raises(AccessDenied, match="This needs the role of"):
                call()
        else:
            try:
                call()
            except AccessDenied:
                pytest.fail("refused")
            except Exception:
                pass  # there is no such run


@pytest.mark.parametrize(
    "call",
    [
        lambda: worklist.entries(), lambda: worklist.keep_read(1, "x"), lambda: worklist.remove([1]),
        lambda: worklist.remove_patient("x"), lambda: worklist.expire(1), lambda: service.start(None, None),
        lambda: service.cancel("x"), lambda: service.resume("x"), lambda: service.delete("x"),
        lambda: service.keep("x", None, 0), lambda: service.delete_set(None), lambda: service.promote(None),
        lambda: service.roll_back("x"), lambda: service.leave_out(None, []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_nobody_gets_nothing(home, whom, call):
    whom[0] = access.NOBODY
    with pytest.raises(AccessDenied):
        call()


def test_the_log_and_a_read_name_who_did_it(home, whom):
    whom[0] = Person("anna", READER)
    case_id, _ = worklist.add(png(0))
    worklist.keep_read(case_id, "ill")
    worklist.remove([case_id])
    assert [(entry.actor, entry.action) for entry in audit.entries(3)] == [
        ("anna", "case removed"), ("anna", "case read"), ("anna", "case added"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "public"),
    [("localhost", False), ("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("", True), (None, True),
     ("192.168.1.5", True), ("clinic.example", True)],
)  # fmt: skip
def test_an_address_is_public_unless_only_this_machine_reaches_it(address, public):
    assert access.is_public(address) is public
