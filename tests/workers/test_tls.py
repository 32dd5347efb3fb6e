"""Certificates of PostgreSQL and Redis are verified in every process unless a setting says otherwise."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from bus.config.database_tls import verify_certificate
from bus.config.settings import Settings
from tests.certificates import write_certificate
from workers.app import create_app
from workers.settings import WorkerSettings

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@dataclass
class TlsServer:
    """A server that ends each connection after the handshake, and counts the handshakes that clients completed."""

    port: int
    certificate: Path
    handshakes: int = 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost with its key, in one file."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate: Path) -> Iterator[TlsServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # With TLS 1.2 the server sees whether the client accepted the certificate before the handshake ends.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = socket.create_server(("127.0.0.1", 0))
    server = TlsServer(listener.getsockname()[1], certificate)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                if connection.recv(8, socket.MSG_PEEK) == _SSL_REQUEST:
                    connection.recv(8)
                    connection.sendall(b"S")
                with context.wrap_socket(connection, server_side=True):
                    server.handshakes += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _settings(server: TlsServer, query: str = "", **variables: str) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": "postgresql://bus@localhost/bus",
            "REDIS_URL": f"rediss://localhost:{server.port}/0{query}",
            **variables,
        }
    )


def _connect_worker(settings: Settings) -> None:
    app = create_app(WorkerSettings(bus=settings))
    with app.connection_for_write() as connection, suppress(Exception):
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=1)


def _connect_client(settings: Settings) -> None:
    assert settings.redis_url is not None
    with redis.Redis.from_url(settings.redis_url, socket_timeout=2) as client, suppress(redis.RedisError):
        client.ping()


_CONNECTIONS = pytest.mark.parametrize("connect", [_connect_worker, _connect_client], ids=["worker", "other processes"])


@_CONNECTIONS
def test_redis_with_an_unknown_certificate_is_refused(server: TlsServer, connect: object) -> None:
    connect(_settings(server))  # type: ignore[operator]
    assert server.handshakes == 0


@_CONNECTIONS
def test_redis_with_an_authority_of_the_url_is_accepted(server: TlsServer, connect: object) -> None:
    connect(_settings(server, f"?ssl_ca_certs={server.certificate}"))  # type: ignore[operator]
    assert server.handshakes > 0


@_CONNECTIONS
def test_verification_of_redis_can_be_switched_off(server: TlsServer, connect: object) -> None:
    connect(_settings(server, REDIS_TLS_VERIFY="0"))  # type: ignore[operator]
    assert server.handshakes > 0


@pytest.mark.parametrize(
    ("query", "env", "accepted"),
    [
        ("", {}, False),
        ("?sslrootcert={certificate}", {}, True),
        ("", {"SSL_CERT_FILE": "{certificate}"}, True),
        ("?sslmode=require", {}, True),
        ("", {"PGSSLMODE": "require"}, True),
    ],
)
def test_postgresql_on_another_machine_is_verified(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch, query: str, env: dict[str, str], accepted: bool
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value.format(certificate=server.certificate))
    # A name that resolves to this machine, and of which the rule does not know that.
    url = verify_certificate(
        f"postgresql://bus@bus.test:{server.port}/bus" + query.format(certificate=server.certificate)
    )
    separator = "&" if "?" in url else "?"
    url = url.replace("bus.test", "localhost") + f"{separator}hostaddr=127.0.0.1"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5)
    assert (server.handshakes > 0) is accepted


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bus@localhost/bus",
        "postgresql://bus@127.0.0.1:5433/bus",
        "postgresql://bus@[::1]/bus",
        "postgresql:///bus",
        "postgresql://bus@/bus?host=/run/postgresql",
        "postgresql://bus@%2Frun%2Fpostgresql/bus",
        "postgresql://bus@db/bus?sslmode=disable",
    ],
)
def test_a_server_on_this_machine_or_with_a_mode_is_left_alone(url: str) -> None:
    assert verify_certificate(url, {}) == url


def test_what_is_added_is_added_once() -> None:
    url = verify_certificate("postgresql://bus:a%2Fb@localhost,db.example.org:5432/bus?application_name=x", {})
    assert url.startswith(
        "postgresql://bus:a%2Fb@localhost,db.example.org:5432/bus?application_name=x&sslmode=verify-full&"
    )
    assert "sslrootcert=/" in url
    assert verify_certificate(url, {}) == url
    assert verify_certificate("postgresql://db/bus", {"PGSSLROOTCERT": "/ca"}).endswith("?sslmode=verify-full")
