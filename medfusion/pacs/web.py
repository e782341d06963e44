"""An archive by DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to store.

Requests hold ids of patients in their addresses, and libraries put these into errors: no text of theirs is passed on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

import pydicom
import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from medfusion.errors import ArchiveError, ArchiveUnreachable
from medfusion.pacs import config
from medfusion.pacs.config import Archive
from medfusion.pacs.found import Part
from medfusion.pacs.retry import tried

LATER = (408, 429, 500, 502, 503, 504)  # another try may help
UNESCAPED = "/?:@!$'()*,;"  # RFC 3986 3.4, without those that mean something
PAGE = 50  # no archive cuts an answer off below that
AS_STORED = (("application/dicom", "*"),)  # in whatever transfer syntax the archive has it


class Web:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        session = requests.Session()
        session.trust_env = False  # no proxy, no .netrc: the configuration alone says where to go
        session.max_redirects = 0  # and nobody else
        session.mount(archive.url[: archive.url.index("://") + 3], Transport(archive))
        session.auth = auth_of(archive)
        try:
            self.client = DICOMwebClient(
                archive.url.rstrip("/"), session, timeout=archive.timeout_s, permissive_uid=True
            )
        except ValueError as error:
            raise ArchiveError(
                f"{archive.title}: the url in the configuration is not understood. Correct it."
            ) from error
        self.client.set_http_retry_params(retry=False)  # ours also retries what never got through

    def echo(self) -> None:
        """A search for one study."""
        with self.explained():
            self.client.search_for_studies(limit=1)

    def find(self, level: str, keys: dict[str, str], wanted: Sequence[str]) -> list[Dataset]:
        rest = {name: value for name, value in keys.items() if name not in ("StudyInstanceUID", "SeriesInstanceUID")}
        study, series = keys.get("StudyInstanceUID"), keys.get("SeriesInstanceUID")

        def ask(offset: int) -> list[Dataset]:
            with self.explained():
                if level == "STUDY":
                    most = self.archive.max_results
                    told = self.client.search_for_studies(limit=most, fields=list(wanted), search_filters=keys)
                elif level == "SERIES":
                    told = self.client.search_for_series(study, offset=offset, fields=list(wanted), search_filters=rest)
                else:
                    told = self.client.search_for_instances(
                        study, series, offset=offset, fields=list(wanted), search_filters=rest
                    )
                return [Dataset.from_json(one) for one in told]

        found = tried(self.archive, lambda: ask(0))
        if level == "STUDY":
            return found[: self.archive.max_results]
        known, came = {uids(one) for one in found}, found
        while len(came) >= PAGE:  # the archive may give no more at once
            came = [one for one in tried(self.archive, partial(ask, len(found))) if uids(one) not in known]
            known |= {uids(one) for one in came}
            found += came
        return found

    def fetch(self, part: Part, keep: Callable[[bytes], None]) -> None:
        failed = None
        for one in part.objects:

            def ask(uid: str = one.uid) -> bytes:
                with self.explained():
                    place = (part.study, part.series, uid)
                    return file_of(self.client.retrieve_instance(*place, media_types=AS_STORED))

            try:
                keep(tried(self.archive, ask))
            except ArchiveUnreachable:
                raise
            except ArchiveError as error:  # of this object: the others may come
                failed = error
        if failed:
            raise failed

    def store(self, objects: Sequence[bytes]) -> None:
        files = [pydicom.dcmread(io.BytesIO(one)) for one in objects]

        def ask() -> Dataset:
            with self.explained():
                return self.client.store_instances(files)

        told = tried(self.archive, ask)
        if failed := len(told.get("FailedSOPSequence") or ()):
            raise ArchiveError(f"{self.archive.title} did not store {failed} of {len(files)} objects. Ask who runs it.")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What goes wrong, in a sentence without the address that was asked."""
        name = self.archive.title
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise ArchiveError(
                f"{name} shows a certificate that is not trusted, or wants one of us. Check ca and certificate."
            ) from error
        except requests.exceptions.Timeout as error:
            raise ArchiveUnreachable(
                f"{name} did not answer in {self.archive.timeout_s:g} s. Try again later, or raise timeout_s."
            ) from error
        except requests.exceptions.TooManyRedirects as error:
            raise ArchiveError(f"{name} sends us elsewhere, which is not followed. Correct its url.") from error
        except requests.exceptions.HTTPError as error:
            raise self.refused(error.response.status_code if error.response is not None else 0) from error
        except requests.exceptions.ConnectionError as error:
            raise ArchiveUnreachable(
                f"{name} cannot be reached at {self.archive.where}. Check that it runs, and the address."
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise self.nonsense() from error
        except requests.exceptions.RequestException as error:
            raise ArchiveError(f"{name}: the request failed ({type(error).__name__}). Check its url.") from error
        except ArchiveError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # answers that are no DICOMweb fail in every way there is
            raise self.nonsense() from error

    def refused(self, status: int) -> ArchiveError:
        name = self.archive.title
        if status in (401, 403):
            return ArchiveError(f"{name} refuses us (HTTP {status}). Check user and password_file, or token_file.")
        if status in LATER:
            return ArchiveUnreachable(f"{name} cannot answer now (HTTP {status}). Try again later.")
        if status == 404:
            return ArchiveError(f"{name} has no such object, or no DICOMweb at {self.archive.where} (HTTP 404).")
        return ArchiveError(f"{name} refuses the request (HTTP {status}). Ask who runs it.")

    def nonsense(self) -> ArchiveError:
        where = self.archive.where
        return ArchiveError(f"{self.archive.title} does not answer as DICOMweb. Check that {where} is its address.")


def uids(data: Dataset) -> tuple[str, str]:
    return str(data.get("SeriesInstanceUID")), str(data.get("SOPInstanceUID"))


class Transport(HTTPAdapter):
    """HTTPS with the certificates of the configuration, and queries with no more escapes than they need.

    Some archives, Orthanc 1.10 among them, take what is escaped as it stands: * would find nothing.
    """

    def __init__(self, archive: Archive) -> None:
        self.context = config.client_context(archive) if archive.url.startswith("https") else None
        super().__init__()

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        if self.context:
            named["ssl_context"] = self.context
        super().init_poolmanager(*given, **named)

    def send(self, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        path, mark, query = (request.url or "").partition("?")
        pairs = (f"{key}={quote(value, safe=UNESCAPED)}" for key, value in parse_qsl(query, keep_blank_values=True))
        request.url = path + mark + "&".join(pairs)
        return super().send(request, *given, **named)


class Token(AuthBase):
    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = (
            f"Bearer {config.secret(self.archive.token_file)}"  # read anew: tokens expire
        )
        return request


def auth_of(archive: Archive) -> AuthBase | None:
    if archive.token_file:
        return Token(archive)
    if archive.user:
        return HTTPBasicAuth(archive.user, config.secret(archive.password_file))
    return None


def file_of(data: Dataset) -> bytes:
    out = io.BytesIO()
    pydicom.dcmwrite(out, data)
    return out.getvalue()
