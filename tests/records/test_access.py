"""Accounts: passwords as hashes only, roles that hold for every call, tries that are limited, and a log of it all."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text

from medfusion import access, doctor, worklist
from medfusion import service as answers
from medfusion.__main__ import main
from medfusion.access import ADMINISTRATOR, READER, TRAINER, Person
from medfusion.errors import AccessDenied
from medfusion.records import audit
from medfusion.records.database import session
from tests.records.scans import png
from training import service

PASSWORD = "correct horse battery"


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


def said_of(name: str, tries: int) -> list[str]:
    told = []
    for _ in range(tries):
        with pytest.raises(AccessDenied) as refused:
            access.sign_in(name, "wrong password")
        told.append(str(refused.value))
    return told


def test_a_name_without_an_account_is_locked_like_one_with_it(home, monkeypatch):
    monkeypatch.setattr(access, "strangers", access.Strangers())
    access.keep("anna", READER, PASSWORD)
    known = said_of("anna", access.TRIES + 2)
    assert "Too many tries" in known[-1]
    for name in ("berta", "", "x" * 300, "an na"):
        assert said_of(name, access.TRIES + 2) == known
    access.strangers.of("berta").locked_until = datetime.now(UTC) - timedelta(seconds=1)
    assert said_of("berta", access.TRIES + 1) == known[: access.TRIES + 1]


def test_tries_of_strangers_are_kept_of_so_many_and_without_their_names(home, monkeypatch):
    monkeypatch.setattr(access, "strangers", access.Strangers())
    monkeypatch.setattr(access, "MOST_STRANGERS", 20)
    access.keep("anna", READER, PASSWORD)
    said_of("berta", access.TRIES)
    for number in range(50):
        access.strangers.of(f"somebody {number}")
        assert access.strangers.of("berta").locked_until  # who is tried on is not forgotten
    assert len(access.strangers.tries) == 20
    assert "berta" not in repr(vars(access.strangers))
    with session() as opened:
        assert opened.scalar(text("SELECT count(*) FROM accounts")) == 1


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
    assert access.sign_in_elsewhere({"email": "anna@clinic.example"}).role == READER
    assert access.sign_in_elsewhere({"email": "anna@clinic.example", "email_verified": True}).role == READER
    with pytest.raises(AccessDenied, match="There is no account for you here"):
        access.sign_in_elsewhere({"email": "berta@clinic.example"})
    for said in (False, "false"):  # providers send either
        with pytest.raises(AccessDenied, match="has not verified your address"):
            access.sign_in_elsewhere({"email": "anna@clinic.example", "email_verified": said})
    signed, refused = ("signed in", "account anna@clinic.example"), ("sign-in refused", "account anna@clinic.example")
    told = [(one.action, one.subject) for one in audit.entries()[:5]]
    assert told == [refused, refused, ("sign-in refused", "unknown account"), signed, signed]


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


UNGUARDED = {  # they look at what the caller holds already
    "against", "agreement", "change", "describe", "disagreement", "display", "epochs", "last", "overlay",
    "presets", "refusal", "stability", "list_public", "in_lines", "in_words_of_kind", "prepare", "edges", "unit",
    "mark",
}  # fmt: skip


def calls_of(module) -> list[str]:  # type: ignore[no-untyped-def]
    return [name for name in module.__all__ if callable(getattr(module, name)) and name[0].islower()]


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module in (answers, service) for name in calls_of(module) if name not in UNGUARDED]
    + [(worklist, name) for name in ("add", "counts", "entries", "find", "keep_read", "own_reads", "reading_figures",
                                     "remove", "risk_along", "series_sizes", "with_series", "remove_patient", "expire")]
    + [(access, name) for name in ("keep", "list_accounts", "remove")] + [(doctor, "check")],
)  # fmt: skip
def test_nobody_gets_nothing(whom, module, name):
    whom[0] = access.NOBODY
    with pytest.raises(AccessDenied):
        getattr(module, name)()  # refused before it looks at what it is given


def test_an_unknown_name_takes_as_long_as_a_known_one(home, monkeypatch):
    access.keep("anna", READER, PASSWORD)
    access.nobodys()
    done = []

    class Counting:
        def __getattr__(self, name):
            done.append(name)
            return getattr(PasswordHasher(), name)

    monkeypatch.setattr(access, "hasher", Counting())
    worked = {}
    for name in ("anna", "berta"):
        done.clear()
        with pytest.raises(AccessDenied):
            access.sign_in(name, "wrong password")
        worked[name] = list(done)
    assert worked["anna"] == worked["berta"] == ["verify"]


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
