"""Signing in: nothing is shown before it, pages keep to roles, and a session ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from medfusion import access
from medfusion.records import audit
from pages.ui import login, state

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)


def keep_account(role: str) -> None:
    """As `account add` does, in a process of its own."""
    asked = access._whom[0]
    access.ask_whom(lambda: access.OWNER)
    access.keep("anna", role, PASSWORD)
    access.ask_whom(asked)


def signed_in(page: AppTest, role: str) -> AppTest:
    keep_account(role)
    page.run()
    page.text_input[0].set_value("anna")
    page.text_input[1].set_value(PASSWORD)
    return page.button[0].click().run()


def titles(page: AppTest) -> list[str]:
    assert not page.exception
    return [header.value for header in page.header]


def test_without_accounts_nobody_is_asked(page: AppTest) -> None:
    assert titles(page.run()) == ["Analyse a scan"]


def test_with_accounts_nothing_is_shown_before_signing_in(page: AppTest) -> None:
    keep_account(access.READER)
    for path in ("pages/analyse.py", "pages/worklist.py", "pages/system.py", "pages/model_library.py"):
        page.switch_page(path).run()
        assert titles(page) == ["Sign in"]
        assert not page.file_uploader


def test_a_wrong_password_says_so_and_the_right_one_opens_the_page(page: AppTest) -> None:
    keep_account(access.READER)
    page.run()
    page.text_input[0].set_value("anna")
    page.text_input[1].set_value("wrong password")
    page.button[0].click().run()
    assert "Name or password is wrong" in page.error[0].value.replace("\\", "")
    assert titles(signed_in(page, access.READER)) == ["Analyse a scan"]
    assert "anna" in page.sidebar.caption[0].value


@pytest.mark.parametrize(
    ("role", "path", "title"),
    [
        (access.READER, "pages/fine_tune.py", None),
        (access.READER, "pages/system.py", None),
        (access.TRAINER, "pages/fine_tune.py", "Fine-tune on your own cases"),
        (access.TRAINER, "pages/system.py", None),
        (access.ADMINISTRATOR, "pages/system.py", "System"),
    ],
)
def test_a_page_is_for_its_role_and_those_above_it(page: AppTest, role: str, path: str, title: str | None) -> None:
    signed_in(page, role).switch_page(path).run()
    if title:
        assert titles(page) == [title.replace("-", "\\-")]
    else:
        assert titles(page) == []  # not even its title
        assert "This needs the role of" in page.error[0].value


def test_signing_out_and_being_away_end_the_session(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(page, access.READER)
    page.button(key="sign-out").click().run()
    assert titles(page) == ["Sign in"]
    signed_in(page, access.READER)
    monkeypatch.setattr(state, "SESSION_MINUTES", -1.0)
    assert titles(page.run()) == ["Sign in"]
    assert "You were away" in page.info[0].value


def test_asking_whether_somebody_is_away_does_not_keep_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = state.Memory()
    monkeypatch.setattr(state, "memory", lambda: kept)
    assert not state.is_away()  # nobody has signed in
    kept.person, kept.seen_s = access.Person("anna", access.READER), time.monotonic()
    assert not state.is_away()
    kept.seen_s -= 60 * state.session_minutes() + 1
    before = kept.seen_s
    assert state.is_away() and state.is_away()
    assert kept.seen_s == before


def test_a_public_address_without_accounts_is_refused_with_what_to_set(page: AppTest, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    whole = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else whole(name))
    page.run()
    assert not page.exception
    assert "medfusion account add" in page.error[0].value
    assert not page.file_uploader
    keep_account(access.READER)
    assert titles(page.run()) == ["Sign in"]


class Named(dict[str, object]):
    """What Streamlit holds of somebody who signed in at the identity provider."""

    is_logged_in = True


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An identity provider that names Anna. What was asked of it."""
    asked: list[str] = []
    monkeypatch.setattr(login, "has_provider", lambda: True)
    monkeypatch.setattr(st, "user", Named(email="anna", iat=time.time()))
    monkeypatch.setattr(st, "logout", lambda: asked.append("logout"))
    return asked


def actions() -> list[str]:
    return [one.action for one in audit.entries() if "sign" in one.action]


def test_whom_the_identity_provider_names_comes_in_once(page: AppTest, provider: list[str]) -> None:
    keep_account(access.READER)
    assert titles(page.run()) == titles(page.run()) == ["Analyse a scan"]
    assert actions() == ["signed in"]
    assert provider == []


def test_who_has_no_account_is_told_so_and_noted_once(page: AppTest, provider: list[str], monkeypatch) -> None:
    keep_account(access.READER)
    monkeypatch.setattr(st, "user", Named(email="mallory", iat=time.time()))
    assert titles(page.run()) == titles(page.run()) == ["Sign in"]
    assert page.error[0].value.startswith("There is no account for you here")
    assert actions() == ["sign-in refused"]


def test_a_session_that_ended_ends_at_the_identity_provider_too(page: AppTest, provider: list[str]) -> None:
    keep_account(access.READER)
    page.run()
    page.session_state["memory"].seen_s -= 60 * state.session_minutes() + 1
    page.run()
    assert titles(page) == []  # the browser is led away
    assert provider == ["logout"]


def test_signing_in_long_ago_at_the_identity_provider_opens_no_session(page: AppTest, provider, monkeypatch) -> None:
    keep_account(access.READER)
    monkeypatch.setattr(st, "user", Named(email="anna", iat=time.time() - 60 * state.session_minutes() - 1))
    assert titles(page.run()) == []
    assert provider == ["logout"]
    assert actions() == []
