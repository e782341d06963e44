"""A real Orthanc of our own, on free ports, with its storage in a temporary folder; it ends with the tests."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from medfusion.records import database, keys

PLUGINS = [
    path
    for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")
    for path in sorted(Path(folder).glob("libOrthancDicomWeb.so"))
]
USER, PASSWORD = "medfusion", "only for tests"
OUR_AET = "MEDFUSION"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass(frozen=True)
class Orthanc:
    http: str
    dicom_port: int
    listener_port: int  # where it believes our listener to be

    def call(self, method: str, path: str, data: object = None) -> requests.Response:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unverified certificate
            told = requests.request(
                method, self.http + path, data=data, auth=(USER, PASSWORD), timeout=60, verify=False
            )
        told.raise_for_status()
        return told

    def put(self, *files: bytes) -> None:
        for file in files:
            self.call("POST", "/instances", file)

    def objects(self) -> list[str]:
        """Its own ids of all objects."""
        return self.call("GET", "/instances").json()

    def tags(self, object_id: str) -> dict[str, str]:
        return self.call("GET", f"/instances/{object_id}/simplified-tags").json()

    def file(self, object_id: str) -> bytes:
        return self.call("GET", f"/instances/{object_id}/file").content

    def clear(self) -> None:
        for patient in self.call("GET", "/patients").json():
            self.call("DELETE", f"/patients/{patient}")


def started(folder: Path, **more: object):
    """An Orthanc as a process; yields it and ends it."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGINS:
        pytest.skip("Orthanc is not installed (Debian: apt install orthanc orthanc-dicomweb)")
    http_port, dicom_port, listener_port = free_port(), free_port(), free_port()
    settings = {
        "Name": "test", "StorageDirectory": str(folder), "IndexDirectory": str(folder),
        "HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC", "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "DicomAlwaysAllowEcho": False, "DicomAlwaysAllowStore": False, "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": False, "DicomAlwaysAllowMove": False, "DicomCheckModalityHost": False,
        "DicomModalities": {
            "ours": {
                "AET": OUR_AET, "Host": "127.0.0.1", "Port": listener_port,
                **{f"Allow{what}": True for what in ("Echo", "Find", "Get", "Move", "Store")},
            }
        },
        "Plugins": [str(PLUGINS[0])], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    } | more  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    scheme = "https" if settings.get("SslEnabled") else "http"
    held = Orthanc(f"{scheme}://127.0.0.1:{http_port}", dicom_port, listener_port)
    deadline = time.monotonic() + 120
    try:
        while True:
            try:
                held.call("GET", "/system")
                break
            except requests.RequestException:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Orthanc did not start ({server.poll()}): {(folder / 'log').read_text()[-500:]}")
                time.sleep(0.1)
        yield held
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="session")
def running_orthanc():
    folder = Path(tempfile.mkdtemp(prefix="medfusion-orthanc-"))
    yield from started(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def orthanc(running_orthanc):
    running_orthanc.clear()
    return running_orthanc


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An installation without records and without archives."""
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    for name in ("MEDFUSION_KEEP_IDENTITY", "MEDFUSION_DATABASE_URL", "MEDFUSION_PACS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    address = database.address()
    yield tmp_path / "home"
    database.engine(address, os.getpid()).dispose()
    database.engine.cache_clear()
    keys.key.cache_clear()


def configure(home: Path, text: str) -> None:
    (home / "pacs.toml").write_text(text)


QUICK = "timeout_s = 20\ntries = 2\nwait_s = 0.05\n"


def web_section(orthanc: Orthanc, name: str = "web", more: str = "send = true") -> str:
    return (
        f'[archives.{name}]\ntitle = "Archive by web"\nurl = "{orthanc.http}/dicom-web/"\nuser = "{USER}"\n'
        f'password_file = "password"\n{QUICK}{more}\n'
    )


def dimse_section(orthanc: Orthanc, name: str = "dimse", more: str = "send = true") -> str:
    return (
        f'[archives.{name}]\ntitle = "Archive by DIMSE"\nhost = "127.0.0.1"\nport = {orthanc.dicom_port}\n'
        f'aet = "ORTHANC"\n{QUICK}{more}\n'
    )


def listener_section(port: int, more: str = "", peers: str = "", tls: str = "") -> str:
    return (
        f'[listener]\naddress = "127.0.0.1"\nport = {port}\ntimeout_s = 20\n{tls}{more}\n'
        '[[listener.peers]]\naet = "ORTHANC"\naddresses = ["127.0.0.0/8"]\n'
        '[[listener.peers]]\naet = "SCANNER"\naddresses = ["127.0.0.1"]\n'
        '[[listener.peers]]\naet = "ELSEWHERE"\naddresses = ["10.9.8.0/24"]\n' + peers
    )


@pytest.fixture
def archives_of(home, orthanc):
    """Both ways to one Orthanc, configured: web and dimse."""
    (home / "password").write_text(PASSWORD + "\n")
    (home / "password").chmod(0o600)
    configure(home, web_section(orthanc) + dimse_section(orthanc))
    return orthanc


def certificates(folder: Path) -> None:
    """ca.pem, and a key with its certificate for 127.0.0.1 as server.key, server.pem and both in one as server.both."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])

    def pem(key: rsa.RSAPrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))

    def builder(subject: str, public: object) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("test CA")).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )  # fmt: skip

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca = builder("test CA", ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    ca = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    own = builder("localhost", key.public_key()).add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(pem(key))
    (folder / "server.both").write_bytes(own.public_bytes(serialization.Encoding.PEM) + pem(key))
