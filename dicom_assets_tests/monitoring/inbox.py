"""Receivers that are real: an HTTP server and mail servers, each in a thread, on ports of their own.

Belongs here: what arrives, and receivers that refuse. Does not belong here: what is asserted.
"""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_assets_tests.support.commands import free_port


@dataclass
class Web:
    """What an HTTP receiver got. status: what it answers."""

    port: int = 0
    status: int = 200
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def web() -> Iterator[Web]:
    """An HTTP server that keeps every JSON that is posted."""
    got = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if got.status < 300:
                got.bodies.append(json.loads(body))
                got.headers.append({name.lower(): value for name, value in self.headers.items()})
                got.paths.append(self.path)
            self.send_response(got.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    got.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Post:
    """What a mail server got. logins: user and password, in the order in which they were given."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    protected: list[bool] = field(default_factory=list)


USER, PASSWORD = "lake@example.org", "not-in-the-file"


@contextmanager
def post(security: str, certificate: Path | None = None, *, login: bool = False) -> Iterator[Post]:
    """A mail server that keeps what it gets. certificate: PEM of key and certificate, for `starttls` and `tls`."""
    got = Post(free_port())

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            found = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(found, EmailMessage)
            got.mails.append(found)
            got.to.append(list(envelope.rcpt_tos))
            got.protected.append(session.ssl is not None or security == "tls")
            return "250 OK"

    def authenticate(_: Any, __: Any, ___: Any, ____: str, given: LoginPassword) -> AuthResult:
        pair = given.login.decode(), given.password.decode()
        got.logins.append(pair)
        return AuthResult(success=pair == (USER, PASSWORD), handled=False)

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    options: dict[str, Any] = {"authenticator": authenticate, "auth_required": login, "auth_require_tls": False}
    if security == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if security == "tls":
        options["ssl_context"] = context
    controller = Controller(Handler(), hostname="127.0.0.1", port=got.port, ready_timeout=30, **options)
    controller.start()
    try:
        yield got
    finally:
        controller.stop()


def write_certificate(target: Path) -> Path:
    """Key and self-signed certificate of 127.0.0.1, in one PEM file."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    target.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return target
