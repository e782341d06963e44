"""Signing in, where there are accounts: a form, or the site's own identity provider (OIDC, by Streamlit)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from medfusion import access
from medfusion.access import NOBODY, OWNER, Person
from medfusion.errors import AccessDenied
from pages.ui import state
from pages.ui.components import page_head
from pages.ui.messages import plain

LOOK_S = 15.0  # between looks at whether somebody is still there


def at_work() -> Person:
    """Who calls, whether from a page, a fragment or a callback of a widget."""
    if not access.are_there_accounts():
        return OWNER
    return (get_script_run_ctx() and state.signed_in()) or NOBODY


access.ask_whom(at_work)


def person() -> Person:
    """Who is at work in this session. Stops the page until somebody has signed in."""
    if not access.are_there_accounts():
        if access.is_public(st.get_option("server.address")):
            page_head("MedFusionNet")
            st.error(
                "This server can be reached from other machines, and nobody must sign in. Set server.address to "
                "localhost in .streamlit/config.toml, or add an account: `python -m medfusion account add NAME --role "
                "administrator`.",
                icon=":material/lock_open:",
            )
            st.stop()
        return OWNER
    found = state.signed_in()
    if found is None and has_provider() and st.user.is_logged_in:
        found = come_in(st.user)
    if found is None:
        ask()
        st.stop()
    return found


def come_in(claims: Mapping[str, Any]) -> Person | None:
    """Whom the identity provider names, soon after signing in there: the cookie of that lasts for weeks."""
    signed_s = claims.get("iat")
    is_stale = signed_s is not None and time.time() - float(signed_s) > 60 * state.session_minutes()
    if state.memory().ended or is_stale:
        st.logout()
        st.stop()
    if not state.memory().turned_away:
        try:
            state.sign_in(access.sign_in_elsewhere(claims))
        except AccessDenied as error:
            state.memory().turned_away = str(error)
    return state.signed_in()


def has_provider() -> bool:
    """Whether .streamlit/secrets.toml names an identity provider."""
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False


def ask() -> None:
    page_head("Sign in")
    if words := state.said("login"):
        st.info(words, icon=":material/timer_off:")
    if words := state.memory().turned_away:
        st.error(plain(words), icon=":material/lock:")
    if has_provider():
        st.button("Sign in with your organisation", on_click=st.login, icon=":material/badge:", type="primary")
    with st.form("login", width=420):
        name = st.text_input("Name", autocomplete="username")
        password = st.text_input("Password", type="password", autocomplete="current-password")
        if st.form_submit_button("Sign in", type="primary"):
            try:
                state.sign_in(access.sign_in(name.strip(), password))
                st.rerun()
            except AccessDenied as error:
                st.error(plain(str(error)), icon=":material/lock:")


def enter(role: str) -> None:
    """The first call of each page: it goes on only for somebody with this role, or one above it."""
    who = person()
    if who is not OWNER:
        show(who)
    try:
        access.require(role)
    except AccessDenied as error:
        st.error(plain(str(error)), icon=":material/lock:")
        st.stop()


def show(who: Person) -> None:
    """Name, role and a way out."""
    with st.sidebar.container(horizontal=True, vertical_alignment="center"):
        st.caption(f":material/person: {plain(who.name)}, {who.role}", width="stretch")
        if st.button("Sign out", key="sign-out"):
            state.sign_out()
            if has_provider() and st.user.is_logged_in:
                st.logout()
            st.rerun()
    clear_screen()


@st.fragment(run_every=LOOK_S)
def clear_screen() -> None:
    """No scan stays in sight of who walks by: the screen is cleared, though nobody does anything."""
    if state.is_away():
        st.rerun()
