"""Who may do what. Without accounts everything is open, for one person at their own machine; with them, by role.

Passwords are kept as argon2id hashes only. The pages tell who is at work (`ask_whom`), and each call that changes or
shows anything asks for a role (`needs`); commands on the machine itself act as its administrator.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, select

from medfusion.errors import AccessDenied
from medfusion.records import audit
from medfusion.records.database import session
from medfusion.records.tables import AccountRow

READER, TRAINER, ADMINISTRATOR = "reader", "trainer", "administrator"
ROLES = (READER, TRAINER, ADMINISTRATOR)  # each may do what those before it may
SHORTEST = 10  # characters of a password
TRIES, LOCKED = 5, timedelta(minutes=15)
MOST_STRANGERS = 2**16  # hashing a password takes so long that fewer can be tried while one of them is locked
NAME = re.compile(r"[\w.@+-]{1,64}")
hasher = PasswordHasher()
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Person:
    name: str
    role: str


OWNER = Person("", ADMINISTRATOR)  # of a machine without accounts
NOBODY = Person("", "")
_whom: list[Callable[[], Person]] = [lambda: OWNER]


def ask_whom(tells: Callable[[], Person]) -> None:
    """What tells who is at work, for this process. It is asked at each call, in callbacks of widgets, too."""
    _whom[0] = tells


def current() -> Person:
    return _whom[0]()


def may(role: str) -> bool:
    return current().role in ROLES[ROLES.index(role) :]


def require(role: str) -> None:
    """Raises AccessDenied unless who is at work may do what this role may."""
    if not may(role):
        raise AccessDenied(f"This needs the role of {role}. Ask an administrator of this installation.")


def needs(role: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A call that is for this role, and those above it, only."""

    def guarded(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def asked(*given: P.args, **named: P.kwargs) -> R:
            require(role)
            return call(*given, **named)

        return asked

    return guarded


def are_there_accounts() -> bool:
    with session() as opened:
        return bool(opened.scalar(select(func.count()).select_from(AccountRow)))


@needs(ADMINISTRATOR)
def list_accounts() -> list[Person]:
    with session() as opened:
        rows = opened.scalars(select(AccountRow).order_by(AccountRow.name)).all()
    return [Person(row.name, row.role) for row in rows]


@needs(ADMINISTRATOR)
def keep(name: str, role: str, password: str | None) -> None:
    """Add an account, or change its role and password. password: None for one that signs in elsewhere (OIDC)."""
    if not NAME.fullmatch(name):
        raise AccessDenied("A name has up to 64 letters, digits and . @ + - _. Choose another one.")
    if role not in ROLES:
        raise AccessDenied(f"There is no role {role!r}. Choose {', '.join(ROLES)}.")
    if password is not None and len(password) < SHORTEST:
        raise AccessDenied(f"A password has at least {SHORTEST} characters. Choose a longer one.")
    with session(writes=True) as opened:
        row = opened.get(AccountRow, name) or AccountRow(name=name, failed=0)
        row.role, row.failed, row.locked_until = role, 0, None
        row.password = hasher.hash(password) if password is not None else ""
        opened.add(row)
        audit.add(opened, current().name, "account kept", f"account {name}", role=role)


@needs(ADMINISTRATOR)
def remove(name: str) -> None:
    with session(writes=True) as opened:
        row = opened.get(AccountRow, name)
        if row is None:
            raise AccessDenied(f"There is no account {name!r}. List them with `account list`.")
        opened.delete(row)
        audit.add(opened, current().name, "account removed", f"account {name}")


@dataclass
class Tries:
    """Of a name without an account, as an account counts them."""

    failed: int = 0
    locked_until: datetime | None = None


class Strangers:
    """Names without an account lock as accounts do: else one could tell which exist.

    Kept in memory as keyed hashes, for a password may be typed as a name; of too many the least recent is forgotten.
    """

    def __init__(self) -> None:
        self.key = secrets.token_bytes(16)
        self.tries: OrderedDict[bytes, Tries] = OrderedDict()
        self.guard = threading.Lock()

    def of(self, name: str) -> Tries:
        hashed = hashlib.blake2b(name.encode("utf-8", "replace"), key=self.key, digest_size=16).digest()
        with self.guard:
            found = self.tries.setdefault(hashed, Tries())
            self.tries.move_to_end(hashed)
            while len(self.tries) > MOST_STRANGERS:
                self.tries.popitem(last=False)
        return found


strangers = Strangers()


def sign_in(name: str, password: str) -> Person:
    """Raises AccessDenied, with the same words whether the name or the password is wrong."""
    now = datetime.now(UTC)
    with session(writes=True) as opened:
        row = opened.get(AccountRow, name) if NAME.fullmatch(name) else None
        tries = row or strangers.of(name)
        locked = tries.locked_until is not None and tries.locked_until > now
        held = row.password if row and row.password else nobodys()  # takes as long
        right = matches(held, password) and row is not None and bool(row.password)
        if right and not locked:
            assert row is not None
            row.failed, row.locked_until = 0, None
            if hasher.check_needs_rehash(row.password):
                row.password = hasher.hash(password)
            person = Person(row.name, row.role)
        elif not locked:
            tries.failed += 1
            if tries.failed >= TRIES:
                tries.failed, tries.locked_until = 0, now + LOCKED
        who = f"account {row.name}" if row else "unknown account"
        audit.add(opened, "", "signed in" if right and not locked else "sign-in refused", who)
    if locked:
        raise AccessDenied(f"Too many tries. Wait {LOCKED.seconds // 60} minutes.")
    if not right:
        raise AccessDenied("Name or password is wrong. Try again, or ask an administrator.")
    return person


def sign_in_elsewhere(claims: Mapping[str, Any]) -> Person:
    """Somebody whom the site's identity provider vouches for, by its claims (OpenID Connect Core 1.0, section 5.1).

    Raises AccessDenied when no account has this address, or when the provider says that it has not verified it.
    """
    name, verified = str(claims.get("email", "")), str(claims.get("email_verified")).lower() != "false"
    with session(writes=True) as opened:
        row = opened.get(AccountRow, name) if NAME.fullmatch(name) else None
        who = f"account {row.name}" if row else "unknown account"
        audit.add(opened, "", "signed in" if row and verified else "sign-in refused", who)
    if not verified:
        raise AccessDenied("Your organisation has not verified your address. Ask it to, then sign in again.")
    if row is None:
        raise AccessDenied("There is no account for you here. Ask an administrator to add your address.")
    return Person(row.name, row.role)


@cache
def nobodys() -> str:
    """A hash to compare with where there is none."""
    return hasher.hash(secrets.token_urlsafe())


def matches(held: str, password: str) -> bool:
    try:
        return hasher.verify(held, password)
    except (VerificationError, InvalidHashError):
        return False


def is_public(address: str | None) -> bool:
    """Whether a server at this address is reached from other machines. None or "": it listens everywhere."""
    if address == "localhost":
        return False
    try:
        return not ipaddress.ip_address(address or "0.0.0.0").is_loopback
    except ValueError:
        return True
