"""nginx with the documented configuration in front of a web process."""

import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pytest

from app.processes.process_tree import set_pdeathsig
from tests.conftest import Processes, find_free_port
from tests.dataset import JSONAPI, Dataset

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
SITE = Path(__file__).resolve().parent.parent / "docs" / "nginx.conf"
CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
{main}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip_min_length 1;
    include site.conf;
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx: apt-get install nginx-light openssl")


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.HTTPError:
        return False


def get_main_settings() -> str:
    """Return the settings of the main configuration that the head of docs/nginx.conf names."""
    settings = re.findall(r"(?m)^#     ((?:worker_|events ).*)$", SITE.read_text())
    assert [each.split()[0] for each in settings] == ["worker_rlimit_nofile", "events"]
    return "\n".join(settings)


def _write_site(prefix: Path, port: int, upstream_port: str, files: str) -> Path:
    """Write docs/nginx.conf for this test; return the path of its certificate."""
    key, certificate = prefix / "key.pem", prefix / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=events.example.com", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    site = SITE.read_text()
    for documented, used in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server 127.0.0.1:5000": f"server 127.0.0.1:{upstream_port}",
        "/etc/ssl/events.example.com.pem": str(certificate),
        "/etc/ssl/private/events.example.com.key": str(key),
        "/srv/open-event/var/files/": f"{files}/",
    }.items():
        assert site.count(documented) == 1, documented
        site = site.replace(documented, used)
    (prefix / "site.conf").write_text(site)
    (prefix / "nginx.conf").write_text(CONFIGURATION.format(main=get_main_settings()))
    return certificate


@pytest.fixture
def proxy(
    dataset: Dataset,
    processes: Processes,
    tmp_path: Path,
    wait_until: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> Iterator[httpx.Client]:
    """Start nginx with the documented configuration in front of a web process with the settings of the test."""
    processes.start("web", TRUSTED_PROXIES="1", **getattr(request, "param", {}))
    prefix = tmp_path / "nginx"
    prefix.mkdir()
    port = find_free_port()
    files = url2pathname(urlsplit(dataset.app.config["STORAGE_URL"]).path)
    certificate = _write_site(prefix, port, processes.environment["PORT"], files)
    command = [str(NGINX), "-p", str(prefix), "-c", "nginx.conf", "-e", "error.log"]
    nginx = subprocess.Popen(command, preexec_fn=set_pdeathsig())
    try:
        trusted = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=30) as client:
            wait_until(lambda: nginx.poll() is not None or _is_up(client), 30, "nginx does not pass requests on")
            assert nginx.poll() is None, (prefix / "error.log").read_text()
            yield client
    finally:
        nginx.terminate()
        nginx.wait(10)


def test_conditional_requests_with_the_weakened_tag_of_a_proxy(dataset: Dataset, proxy: httpx.Client) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    proxy.headers = {"Authorization": f"JWT {dataset.owner.token}", "Content-Type": JSONAPI}
    document = {"data": {"type": "event", "id": str(dataset.events["published"]), "attributes": {"name": "Mine"}}}

    read = proxy.get(path)
    tag = read.headers["ETag"]
    assert (read.headers["Content-Encoding"], tag[:2]) == ("gzip", "W/")
    assert proxy.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert proxy.get(path, headers={"If-Match": tag}).status_code == 200

    changed = proxy.patch(path, json=document, headers={"If-Match": tag})
    again = proxy.patch(path, json=document, headers={"If-Match": tag})

    assert (changed.status_code, again.status_code) == (200, 412)
    assert proxy.get(path, headers={"If-None-Match": tag}).status_code == 200
    next_tag = changed.headers["ETag"]
    assert proxy.delete(path, headers={"If-Match": next_tag}).status_code == 200


def test_unfinished_handshakes_do_not_take_all_connections(proxy: httpx.Client) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        for _ in range(1000):  # more than the 512 connections that nginx has without a setting
            client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.base_url.port or 443), 5))
            client.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello

        answer = httpx.get(f"{proxy.base_url}/livez", verify=False, timeout=5, trust_env=False)  # noqa: S501

    assert answer.status_code == 200


@pytest.mark.parametrize("proxy", [{"X_ACCEL_REDIRECT": "/stored-files"}], indirect=True)
def test_nginx_sends_files_that_the_server_permits(dataset: Dataset, proxy: httpx.Client) -> None:
    content = os.urandom(3 * 2**20)
    dataset.app.extensions["storage"].put("images/large.png", content, "image/png")
    path = "/files/images/large.png"

    whole = proxy.get(path)
    assert (whole.status_code, whole.content == content) == (200, True)
    assert whole.headers["Content-Type"] == "image/png"
    assert whole.headers["Cache-Control"] == "no-cache"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    part = proxy.get(path, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, content[5:10])
    assert proxy.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert proxy.get("/files/images/none.png").status_code == 404
    assert proxy.get("/stored-files/images/large.png").status_code == 404
