"""Which archives there are and who may send to us: pacs.toml in MEDFUSION_HOME, or the file that MEDFUSION_PACS names.

Read at each use, so that a change counts at once. Without the file there is no archive and no listener.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from medfusion import access, places
from medfusion.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 table 6.2-1, AE: no backslash, no control character
LONGEST_S = 600.0
T = TypeVar("T")


@dataclass(frozen=True)
class Tls:
    """Files of a secured connection. A listener with a ca lets in only who has a certificate of it."""

    tls: bool = False
    ca: str = ""  # whom to trust; "": whom the system trusts
    certificate: str = ""  # ours
    key: str = ""


@dataclass(frozen=True)
class Archive(Tls):
    """One archive, reached by DICOMweb (url) or by DIMSE (host, port and AE title)."""

    name: str = ""
    title: str = ""
    url: str = ""
    host: str = ""
    port: int = 104
    aet: str = ""  # its AE title
    our_aet: str = "MEDFUSION"
    retrieve: str = "get"  # or move: to our listener, for archives without C-GET
    move_to: str = ""  # AE title of that listener, as the archive knows it; "": our_aet
    send: bool = False  # whether reports go back; only then is the sealed link to the study kept with a case
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    timeout_s: float = 30.0
    tries: int = 3
    wait_s: float = 1.0  # before the second try; twice as long before each further one
    max_results: int = 200
    max_objects: int = 5000  # fetched at once

    @property
    def is_web(self) -> bool:
        return bool(self.url)

    @property
    def where(self) -> str:
        """The address in words, for messages."""
        return self.url or f"{self.aet} at {self.host}:{self.port}"


@dataclass(frozen=True)
class Peer:
    """Somebody who may send to us: AE title and addresses must both fit."""

    aet: str
    addresses: tuple[str, ...]

    def fits(self, aet: str, address: str) -> bool:
        try:
            came = ipaddress.ip_address(address.removeprefix("::ffff:"))
        except ValueError:
            return False
        return aet == self.aet and any(came in ipaddress.ip_network(one, strict=False) for one in self.addresses)


@dataclass(frozen=True)
class Listener(Tls):
    aet: str = "MEDFUSION"
    address: str = "localhost"
    port: int = 11112
    archive: str = ""  # the archive that what comes belongs to; only then can a report go back
    timeout_s: float = 60.0  # of silence
    max_associations: int = 10
    peers: tuple[Peer, ...] = ()


@dataclass(frozen=True)
class Settings:
    archives: dict[str, Archive] = dataclasses.field(default_factory=dict)
    listener: Listener | None = None


def path() -> Path:
    return Path(os.environ.get("MEDFUSION_PACS") or places.home() / "pacs.toml").absolute()


def read() -> Settings:
    """Raises ConfigError with the section and the key."""
    at = path()
    try:
        told = tomllib.loads(at.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if os.environ.get("MEDFUSION_PACS"):
            raise ConfigError(
                "The file that MEDFUSION_PACS names is not there. Check the path, or unset it."
            ) from error
        return Settings()
    except OSError as error:
        raise ConfigError(f"{at.name} cannot be read ({error.strerror}). Check its permissions.") from error
    except ValueError as error:  # TOML or UTF-8
        raise ConfigError(f"{at.name} is not valid TOML ({error}). Correct that line.") from error
    if unknown := set(told) - {"archives", "listener"}:
        raise ConfigError(f"{at.name} has an unknown section {sorted(unknown)[0]!r}. Known: archives, listener.")
    sections = told.get("archives", {})
    if not isinstance(sections, dict) or not all(isinstance(one, dict) for one in sections.values()):
        raise ConfigError(f"{at.name}: write each archive as a section [archives.NAME].")
    archives = {name: archive_of(name, section) for name, section in sections.items()}
    listener = listener_of(told["listener"]) if "listener" in told else None
    if listener and listener.archive and listener.archive not in archives:
        raise ConfigError(f"{at.name}: the listener's archive {listener.archive!r} has no section [archives.NAME].")
    return Settings(archives, listener)


def archive_of(name: str, told: dict[str, Any]) -> Archive:
    place = f"[archives.{name}]"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{place}: a name has up to 32 of a-z, 0-9, _ and -. Choose another one.")
    one = filled(Archive, told, place, {"name": name, "title": str(told.get("title") or name)})
    if bool(one.url) == bool(one.host):
        raise ConfigError(f"{place}: give either url (DICOMweb) or host, port and aet (DIMSE).")
    if one.url:
        check_url(one, place)
    elif not one.aet:
        raise ConfigError(f"{place}: aet, the AE title of the archive, is missing.")
    for key in ("aet", "our_aet", "move_to"):
        check_aet(getattr(one, key), f"{place} {key}", may_miss=key != "our_aet")
    check_port(one.port, place)
    if one.retrieve not in ("get", "move"):
        raise ConfigError(f"{place} retrieve is {one.retrieve!r}. Write get or move.")
    if not 0 < one.timeout_s <= LONGEST_S or one.wait_s < 0:
        raise ConfigError(f"{place}: timeout_s is from 0 to {LONGEST_S:g}, wait_s at least 0. Change it.")
    if min(one.tries, one.max_results, one.max_objects) < 1:
        raise ConfigError(f"{place}: tries, max_results and max_objects are at least 1. Change it.")
    return one


def check_url(one: Archive, place: str) -> None:
    try:
        parts = urlsplit(one.url)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        found = False
    if not found or parts.query or parts.fragment:
        raise ConfigError(f"{place} url is no address of a DICOMweb service. Write https://HOST/PATH.")
    if parts.username or parts.password:
        raise ConfigError(f"{place} url holds a password. Write user and password_file instead.")
    if parts.scheme == "http" and (one.user or one.token_file) and access.is_public(parts.hostname):
        raise ConfigError(f"{place}: a password or token would go over http unprotected. Use https.")
    if one.user and not one.password_file:
        raise ConfigError(f"{place}: user needs password_file, a file that holds the password.")


def listener_of(told: Any) -> Listener:
    place = "[listener]"
    if not isinstance(told, dict):
        raise ConfigError(f"{place} is no section. Write [listener], and [[listener.peers]] below it.")
    given = told.get("peers", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ConfigError(f"{place}: write each peer as a section [[listener.peers]].")
    peers = tuple(peer_of(one) for one in given)
    rest = {key: value for key, value in told.items() if key != "peers"}
    one = filled(Listener, rest, place, {"peers": peers})
    if not peers:
        raise ConfigError(f"{place} has no peers, so nobody could send. Add [[listener.peers]] with aet and addresses.")
    check_aet(one.aet, f"{place} aet")
    check_port(one.port, place)
    if not 0 < one.timeout_s <= LONGEST_S or one.max_associations < 1:
        raise ConfigError(f"{place}: timeout_s is from 0 to {LONGEST_S:g}, max_associations at least 1. Change it.")
    if one.tls and not (one.certificate and one.key):
        raise ConfigError(f"{place}: tls needs certificate and key. Name both files.")
    return one


def peer_of(told: dict[str, Any]) -> Peer:
    place = "[[listener.peers]]"
    if set(told) != {"aet", "addresses"} or not isinstance(told["addresses"], list) or not told["addresses"]:
        raise ConfigError(f'{place}: write aet = "TITLE" and addresses = ["10.1.2.3", "10.1.4.0/24"].')
    check_aet(told["aet"], f"{place} aet")
    for one in told["addresses"]:
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError as error:
            raise ConfigError(
                f"{place}: {one!r} is no IP address or network. Write 10.1.2.3 or 10.1.4.0/24."
            ) from error
    return Peer(told["aet"], tuple(map(str, told["addresses"])))


def filled(kind: type[T], told: dict[str, Any], place: str, fixed: dict[str, Any]) -> T:
    """A dataclass of a section: no unknown key, each value of its type, files relative to the configuration."""
    types = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = [name for name in types if name not in fixed or name == "title"]
    values: dict[str, Any] = {}
    for key, value in told.items():
        if key not in known:
            raise ConfigError(f"{place} has an unknown key {key!r}. Known: {', '.join(sorted(known))}.")
        wanted = type(types[key].default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(f"{place} {key} is {value!r}. Write a {WORDS[wanted]}.")
        values[key] = value
    for key in ("ca", "certificate", "key", "password_file", "token_file"):
        if values.get(key):
            values[key] = str(path().parent / values[key])
    return kind(**values | fixed)


WORDS = {str: 'text in "quotes"', int: "whole number", float: "number", bool: "true or false"}


def check_aet(title: object, place: str, may_miss: bool = False) -> None:
    if may_miss and title == "":
        return
    if not isinstance(title, str) or not AE_TITLE.fullmatch(title) or title != title.strip():
        raise ConfigError(f"{place} is no AE title. It has 1 to 16 characters without a backslash.")


def check_port(port: int, place: str) -> None:
    if not 0 < port < 65536:
        raise ConfigError(f"{place} port is {port}. It is from 1 to 65535.")


def secret_files(settings: Settings) -> list[Path]:
    """Passwords, tokens and private keys that the configuration names."""
    named = [name for one in settings.archives.values() for name in (one.password_file, one.token_file, one.key)]
    named += [settings.listener.key] if settings.listener else []
    return [Path(name) for name in named if name]


def secret(at: str) -> str:
    """The first line of a file. Raises ConfigError."""
    try:
        return (Path(at).read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"The secret in {Path(at).name} cannot be read. Check the file.") from error


def client_context(one: Tls) -> ssl.SSLContext:
    """To connect with. Raises ConfigError."""
    try:
        made = ssl.create_default_context(cafile=one.ca or None)
        if one.certificate:
            made.load_cert_chain(one.certificate, one.key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("The certificates for a secured connection cannot be read. Check the files.") from error
    return made


def server_context(one: Tls) -> ssl.SSLContext:
    """To listen with. Raises ConfigError."""
    try:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2  # PS3.15 B.9, BCP 195
        made.load_cert_chain(one.certificate, one.key or None)
        if one.ca:
            made.load_verify_locations(one.ca)
            made.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("The certificates of the listener cannot be read. Check the files.") from error
    return made
