"""The commands of "Install on a server", run as root with folders and a network of their own."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.console_blocks import ROOT, Reader
from tests.servers import make_traversable_folder

_PAGE = ROOT / "docs" / "howto" / "install.md"
_CADDY_ROOT = "$HOME/.local/share/caddy/pki/authorities/local/root.crt"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_UV = f"nsenter --net=/proc/self/fd/9 {Path(sys.executable).with_name('uv')} pip"
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
# PostgreSQL and Valkey at their usual ports; they end with the namespace.
_SERVERS = """
import signal, sys
import psycopg
from pathlib import Path
from urllib.parse import urlsplit
from cli.embedded import account, postgres, redis
from cli.embedded.binaries import find_postgres
folder = Path(sys.argv[1])
log = folder / "servers.log"
database = postgres.launch(
    folder / "postgres", port=5432, log_path=log, account=account.choose_account(folder), ephemeral=True
)
queue = redis.launch(folder / "redis", port=6379, log_path=log, ephemeral=True)
postgres.wait_until_ready(database)
redis.wait_until_ready(queue)
with psycopg.connect(database.maintenance_url, autocommit=True) as conn:
    conn.execute("DROP DATABASE llm_bus")
(folder / "redis-url").write_text(queue.url)
(folder / "programs").write_text(str(find_postgres(folder, account.choose_account(folder)).bin_dir))
url = urlsplit(database.maintenance_url)
(folder / "ready").write_text(f"export PGHOST=127.0.0.1 PGUSER={url.username} PGPASSWORD={url.password}")
signal.pause()
"""
# The folders that the commands write to are copies, and the name of the server is this machine's.
_PREPARATION = """
set -e
mount --make-rprivate /
ip link set lo up
mkdir "$WORK/layers" "$WORK/network"
for name in hosts resolv.conf; do [ ! -e "/etc/$name" ] || cp -L "/etc/$name" "$WORK/network"; done
mount -t tmpfs tmpfs "$WORK/layers"
for name in etc var opt; do
    mkdir "$WORK/layers/$name" "$WORK/layers/$name.work"
    mount -t overlay overlay -o "lowerdir=/$name,upperdir=$WORK/layers/$name,workdir=$WORK/layers/$name.work" "/$name"
done
# In a container these files are mounted one by one, and the copy of /etc has them empty.
cp --remove-destination "$WORK/network/"* /etc/
echo '127.0.0.1 bus.example.org' >> /etc/hosts
rm -f /etc/nginx/sites-enabled/default
mkdir /etc/ssl/bus.example.org
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj '/CN=Local CA' -keyout "$WORK/ca.key" -out "$WORK/ca.pem"
openssl req -newkey rsa:2048 -nodes -subj /CN=bus.example.org -out "$WORK/csr" \\
    -keyout /etc/ssl/bus.example.org/privkey.pem
echo 'subjectAltName = DNS:bus.example.org' > "$WORK/names"
openssl x509 -req -in "$WORK/csr" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -CAcreateserial -days 1 \\
    -extfile "$WORK/names" -out /etc/ssl/bus.example.org/fullchain.pem
cat "$WORK/ca.pem" >> /etc/ssl/certs/ca-certificates.crt
python -c "$START_SERVERS" "$SERVERS" &
until [ -e "$SERVERS/ready" ]; do sleep 0.2; done
set +e
"""
_PROGRAMS = {
    # A prompt without a terminal reads the standard input.
    "sudo": """#!/bin/sh
shift 2
. "$SERVERS/ready"
case $1 in
createuser) printf 'PASSWORD\nPASSWORD\n' | setsid --wait "$@" ;;
*) exec "$@" ;;
esac
""",
    # Passwords and names are those of the files, but that of Valkey. Caddy signs with an authority of its own instead
    # of asking for a certificate.
    "editor": """#!/bin/sh
case $1 in
/etc/caddy/Caddyfile)
    sed -i '1a local_certs\\nskip_install_trust' "$1" ;;
/etc/llm-bus.env)
    sed -i "s#^REDIS_URL=.*#REDIS_URL='$(cat "$SERVERS/redis-url")'#" "$1" ;;
esac
""",
    "systemctl": f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("systemctl.py")} "$@"\n',
}


def _can_unshare() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    needed = ("unshare", "adduser", "nginx", "caddy", "systemd-analyze", "createuser", "openssl", "ip")
    return all(map(shutil.which, needed)) and subprocess.run([*_NAMESPACES, "true"], check=False).returncode == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.skipif(not _can_unshare(), reason="needs root, namespaces, nginx, Caddy and systemd-analyze")
def test_install_on_a_server(tmp_path: Path) -> None:
    programs, state = tmp_path / "programs", tmp_path / "state"
    for folder in (programs, state):
        folder.mkdir()
    for name, text in _PROGRAMS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    servers = make_traversable_folder()
    command = shlex.join([*_NAMESPACES, "bash", "--norc", "--noprofile"])
    try:
        reader = Reader(
            tmp_path,
            {
                "git clone REPOSITORY": f"git clone {ROOT}",
                # That of the system: the account of the service reads no home folders.
                "python3 -m venv": "/usr/bin/python3 -m venv",
                # Packages come from outside the network of the test; uv reads the same file in a tenth of the time.
                ".venv/bin/pip install": f"{_UV} install --python .venv/bin/python --no-deps",
                # The programs of the server's version, which come with its package.
                "llm-bus backup": 'LLM_BUS_PG_BIN=$(cat "$SERVERS/programs") llm-bus backup',
                "cp deploy/Caddyfile": "nginx -s stop && cp deploy/Caddyfile",
                "systemctl reload caddy": f"systemctl reload caddy && cat {_CADDY_ROOT} >> {_AUTHORITIES}",
            },
            variables={
                "WORK": str(tmp_path),
                "SERVERS": str(servers),
                "START_SERVERS": _SERVERS,
                "SYSTEMCTL_STATE": str(state),
                "HOME": str(tmp_path),
            },
            shell=("sh", "-c", f"exec 9</proc/self/ns/net; exec {command}"),
            preparation=_PREPARATION,
        )
        assert reader.run(_PAGE) > 20
    except AssertionError as error:
        logs = "".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in state.glob("*.log"))
        raise AssertionError(f"{error}\n{logs}") from error
    finally:
        shutil.rmtree(servers, ignore_errors=True)
