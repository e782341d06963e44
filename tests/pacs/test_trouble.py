"""Archives that are down, silent, strict, busy, or something else altogether: a sentence each, and no word of whom."""

import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest
from pynetdicom.acse import ACSE

from medfusion import places
from medfusion.errors import ArchiveError, ArchiveUnreachable, ConfigError
from medfusion.pacs import archives, config
from medfusion.pacs.archives import Pick
from medfusion.pacs.found import Query
from tests.pacs.conftest import (
    PASSWORD,
    certificates,
    configure,
    dimse_section,
    free_port,
    started,
)
from tests.records.scans import NUMBER, dicom

ASKED = Query(patient_id=NUMBER)


def section(kind: str, port: int, more: str = "") -> str:
    by_web, by_dimse = (
        f'url = "http://127.0.0.1:{port}/dicom-web"',
        f'host = "127.0.0.1"\nport = {port}\naet = "THEIRS"',
    )
    return f"[archives.a]\nwait_s = 0.05\n{by_web if kind == 'web' else by_dimse}\n{more}\n"


@contextmanager
def served(answer, tls=None):
    """A web server of a few lines. answer: called with the handler for each GET and POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler, status, body=b"", **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize("kind", ["web", "dimse"])
def test_an_archive_that_is_down_is_tried_again_and_told_in_a_sentence(home, kind):
    configure(home, section(kind, free_port(), "tries = 3"))
    began = time.monotonic()
    with pytest.raises(ArchiveUnreachable) as told:
        archives.find("a", ASKED)
    assert time.monotonic() - began >= 0.05 + 0.1  # pauses that double
    assert "Check that it runs" in str(told.value)
    assert NUMBER not in str(told.value)


@pytest.mark.parametrize("kind", ["web", "dimse"])
def test_one_that_accepts_and_stays_silent_is_given_up(home, kind):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configure(home, section(kind, silent.getsockname()[1], "timeout_s = 0.5\ntries = 2"))
        began = time.monotonic()
        with pytest.raises(ArchiveUnreachable):
            archives.find("a", ASKED)
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("looks_after_s", [0, 0.5])  # when it was refused, and the connection closed
def test_wrong_titles_on_either_side_say_which_and_are_not_tried_again(archives_of, home, monkeypatch, looks_after_s):
    send_request = ACSE.send_request

    def request(acse):
        send_request(acse)
        time.sleep(looks_after_s)

    monkeypatch.setattr(ACSE, "send_request", request)
    at = home / "pacs.toml"
    whole = at.read_text()
    at.write_text(whole.replace('aet = "ORTHANC"', 'aet = "OTHER"'))
    with pytest.raises(ArchiveError, match="another AE title than OTHER"):
        archives.echo("dimse")
    at.write_text(whole.replace('aet = "ORTHANC"', 'aet = "ORTHANC"\nour_aet = "STRANGER"'))
    for call in (lambda: archives.echo("dimse"), lambda: archives.find("dimse", ASKED)):
        with pytest.raises(ArchiveError, match=r"refuses|does not know us|does not offer") as told:
            call()
        assert not isinstance(told.value, ArchiveUnreachable)


def test_a_wrong_password_and_a_wrong_path_are_told_apart(archives_of, home):
    (home / "password").write_text("wrong")
    with pytest.raises(ArchiveError, match=r"refuses us \(HTTP 401\)"):
        archives.echo("web")
    (home / "password").write_text(PASSWORD)
    at = home / "pacs.toml"
    at.write_text(at.read_text().replace("/dicom-web/", "/nowhere/"))
    with pytest.raises(ArchiveError, match="HTTP 404"):
        archives.echo("web")


def test_one_that_is_busy_for_a_moment_is_asked_again(home):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        reply(handler, 503 if len(asked) < 3 else 200, b"" if len(asked) < 3 else b"[]")

    with served(answer) as port:
        configure(home, section("web", port, "tries = 3"))
        assert archives.find("a", ASKED) == []
        assert len(asked) == 3
        configure(home, section("web", port, "tries = 2"))
        asked.clear()
        with pytest.raises(ArchiveUnreachable, match="HTTP 503"):
            archives.find("a", ASKED)
        assert len(asked) == 2


def test_no_redirect_is_followed(home):
    reached = []
    with served(lambda handler: reached.append(handler.path) or reply(handler, 200, b"[]")) as elsewhere:
        there = f"http://127.0.0.1:{elsewhere}/steal"
        with served(lambda handler: reply(handler, 307, Location=there)) as port:
            configure(home, section("web", port))
            with pytest.raises(ArchiveError, match="sends us elsewhere"):
                archives.find("a", ASKED)
    assert reached == []


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b'[{"00100020": 5}]', b'"x"', b"[[[", b"\xff\xfe", b'[{"0020000D":{"vr":"QQ"}}]']
)
def test_something_else_than_dicomweb_is_said_to_be(home, body):
    with served(lambda handler: reply(handler, 200, body, Content_Type="application/dicom+json")) as port:
        configure(home, section("web", port))
        try:
            assert archives.find("a", ASKED) == []
        except ArchiveError as error:
            assert "does not answer as DICOMweb" in str(error)


def test_one_object_that_cannot_be_had_does_not_keep_the_others_away(home):
    study = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": ["1.2.3"]}}
    many = [{"00080018": {"vr": "UI", "Value": [f"1.2.3.4.5.{number}"]}} for number in (1, 2, 3)]

    def answer(handler):
        path = handler.path.partition("?")[0]
        if path.endswith("/series"):
            reply(handler, 200, json.dumps([study]).encode())
        elif path.endswith("/instances"):
            reply(handler, 200, json.dumps(many).encode())
        elif path.endswith(".2"):
            reply(handler, 410)
        else:
            part = dicom(int(path[-1]))
            kind = 'multipart/related; type="application/dicom"; boundary="b"'
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n--b--\r\n"
            reply(handler, 200, body, Content_Type=kind)

    with served(answer) as port:
        configure(home, section("web", port))
        told = archives.fetch("a", [Pick("1.2")])
    assert (told.total, told.new) == (3, 2)
    assert "HTTP 410" in " ".join(told.problems)


@pytest.mark.parametrize("turns", [True, False])
def test_an_answer_that_comes_in_pages_is_read_to_its_end(home, turns):
    many = [{"00080018": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(130)]

    def answer(handler):
        offset = int(dict(parse_qsl(urlsplit(handler.path).query)).get("offset", 0)) if turns else 0
        reply(handler, 200, json.dumps(many[offset : offset + 60]).encode())

    with served(answer) as port:
        configure(home, section("web", port))
        place = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
        found = archives.client(archives.named("a")).find("IMAGE", place, ("SOPInstanceUID",))
    assert len(found) == (130 if turns else 60)


@pytest.mark.parametrize("uid", ["1.2/../3", "1\\2", "", "x", "1" * 65])
def test_what_is_no_identifier_is_not_asked_for(archives_of, uid):
    with pytest.raises(ArchiveError, match="no identifier"):
        archives.fetch("web", [Pick(uid)])
    with pytest.raises(ArchiveError, match="no identifier"):
        archives.find_series("dimse", uid)


def test_https_trusts_only_whom_the_site_names(home, tmp_path):
    certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with served(lambda handler: reply(handler, 200, b"[]"), tls) as port:
        address = f'[archives.a]\nurl = "https://127.0.0.1:{port}/dicom-web"\nwait_s = 0.05\n'
        configure(home, address + f'ca = "{tmp_path}/ca.pem"\n')
        assert "answers by DICOMweb" in archives.echo("a")
        configure(home, address)
        with pytest.raises(ArchiveError, match="certificate that is not trusted"):
            archives.echo("a")


def test_dimse_over_tls_trusts_only_whom_the_site_names(home, tmp_path):
    certificates(tmp_path)
    folder = tmp_path / "orthanc"
    folder.mkdir()
    secured = {
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(tmp_path / "server.pem"),
        "DicomTlsPrivateKey": str(tmp_path / "server.key"), "DicomTlsTrustedCertificates": str(tmp_path / "ca.pem"),
    }  # fmt: skip
    own = f'certificate = "{tmp_path}/server.pem"\nkey = "{tmp_path}/server.key"\n'
    for orthanc in started(folder, **secured):
        orthanc.put(dicom(1))
        configure(home, dimse_section(orthanc, more=f'tls = true\nca = "{tmp_path}/ca.pem"\n{own}'))
        assert "answers C-ECHO" in archives.echo("dimse")
        assert archives.fetch("dimse", [Pick("1.2.3.4")]).new == 1
        for more in ("tls = true\n" + own, f'tls = true\nca = "{tmp_path}/ca.pem"\n', ""):
            configure(home, dimse_section(orthanc, more=more))
            with pytest.raises(ArchiveError, match="does not answer"):
                archives.echo("dimse")


GOOD = '[archives.a]\nurl = "https://pacs.example/dicom-web"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[archives.a]\n", "either url"),
        (GOOD + 'host = "x"\n', "either url"),
        ("[archives.a]\nhost = 'x'\n", "AE title of the archive, is missing"),
        ("[archives.a]\nurl = 'ftp://x'\n", "no address of a DICOMweb"),
        ("[archives.a]\nurl = 'https://u:p@x/'\n", "holds a password"),
        ("[archives.a]\nurl = 'http://pacs.example/'\nuser = 'u'\npassword_file = 'p'\n", "unprotected"),
        (GOOD + "user = 'u'\n", "needs password_file"),
        (GOOD + "sned = true\n", "unknown key 'sned'"),
        (GOOD + "send = 1\n", "Write a true or false"),
        (GOOD + "timeout_s = 0\n", "timeout_s"),
        (GOOD + "retrieve = 'push'\n", "Write get or move"),
        (GOOD + "port = 70000\n", "from 1 to 65535"),
        (GOOD + "our_aet = '12345678901234567'\n", "no AE title"),
        ("[archives.'A b']\nurl = 'https://x'\n", "a name has up to 32"),
        ("[archive.a]\n", "unknown section 'archive'"),
        ("archives = 3", "as a section"),
        ("[archives.a\n", "not valid TOML"),
        ("[listener]\n", "has no peers"),
        ("[listener]\n[[listener.peers]]\naet = 'X'\n", 'addresses = \\["10.1.2.3"'),
        ("[listener]\n[[listener.peers]]\naet = 'X'\naddresses = ['scanner']\n", "no IP address"),
        ("[listener]\narchive = 'b'\n[[listener.peers]]\naet = 'X'\naddresses = ['10.0.0.1']\n", "listener's archive"),
        ("[listener]\ntls = true\n[[listener.peers]]\naet = 'X'\naddresses = ['10.0.0.1']\n", "needs certificate"),
        ("listener = 1", "no section"),
    ],
)
def test_a_configuration_that_makes_no_sense_says_where(home, text, said):
    configure(home, text)
    with pytest.raises(ConfigError, match=said):
        config.read()


def test_the_configuration_in_the_readme_is_one(home):
    readme = (places.PROJECT / "README.md").read_text(encoding="utf-8")
    configure(home, readme.partition("```toml\n")[2].partition("```")[0])
    found = config.read()
    assert [(one.is_web, one.send) for one in found.archives.values()] == [(True, True), (False, False)]
    assert found.listener.peers[0].fits("CT1", "10.1.4.7")
    assert not found.listener.peers[0].fits("CT1", "10.1.5.7")
    assert not found.listener.peers[0].fits("CT2", "10.1.4.7")


def test_without_a_configuration_there_is_nothing_and_a_named_one_must_be_there(home, monkeypatch, tmp_path):
    assert config.read() == config.Settings()
    assert archives.configured() == {}
    with pytest.raises(ConfigError, match="There is no archive 'web'"):
        archives.echo("web")
    monkeypatch.setenv("MEDFUSION_PACS", str(tmp_path / "elsewhere.toml"))
    with pytest.raises(ConfigError, match="is not there"):
        config.read()
    (tmp_path / "elsewhere.toml").write_text(GOOD)
    assert archives.configured()["a"].where == "https://pacs.example/dicom-web"


def test_a_listener_without_certificates_that_can_be_read_says_so(home):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.server_context(config.Tls(True, "", str(home / "none.pem"), str(home / "none.key")))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.client_context(config.Tls(True, str(home / "none.pem")))
    assert isinstance(config.client_context(config.Tls(True)), ssl.SSLContext)
