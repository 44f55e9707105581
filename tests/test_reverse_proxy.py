"""A real nginx in front: it compresses answers, and so weakens their entity tags, and sends files itself."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pytest

from app.processes.orphans import dying_with_parent
from tests.conftest import Processes, free_port
from tests.world import JSONAPI, World

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip on;
    gzip_proxied any;
    gzip_types {media_type};
    gzip_min_length 1;
    server {{
        listen 127.0.0.1:{port};
        location /stored-files/ {{
            internal;
            alias {files}/;
            add_header X-Content-Type-Options nosniff always;
            add_header Content-Security-Policy "sandbox; default-src 'none'" always;
        }}
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx: apt-get install nginx-light")


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def proxy(
    world: World, processes: Processes, tmp_path: Path, wait_until: Callable[..., Any], request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of an nginx in front of a web process, which has the settings that the test names."""
    processes.start("web", TRUSTED_PROXIES="1", **getattr(request, "param", {}))
    prefix = tmp_path / "nginx"
    prefix.mkdir()
    port = free_port()
    files = url2pathname(urlsplit(world.app.config["STORAGE_URL"]).path)
    configuration = CONFIGURATION.format(port=port, upstream=processes.base_url, media_type=JSONAPI, files=files)
    (prefix / "nginx.conf").write_text(configuration)
    command = [str(NGINX), "-p", str(prefix), "-c", "nginx.conf", "-e", "error.log"]
    nginx = subprocess.Popen(command, preexec_fn=dying_with_parent())
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: nginx.poll() is not None or _is_up(url), 30, "nginx does not pass requests on")
        assert nginx.poll() is None, (prefix / "error.log").read_text()
        yield url
    finally:
        nginx.terminate()
        nginx.wait(10)


def test_conditional_requests_with_the_weakened_tag_of_a_proxy(world: World, proxy: str) -> None:
    path = f"{proxy}/v1/events/{world.events['published']}"
    headers = {"Authorization": f"JWT {world.owner.token}", "Content-Type": JSONAPI}
    document = {"data": {"type": "event", "id": str(world.events["published"]), "attributes": {"name": "Mine"}}}

    with httpx.Client(headers=headers, timeout=30) as client:
        read = client.get(path)
        tag = read.headers["ETag"]
        assert (read.headers["Content-Encoding"], tag[:2]) == ("gzip", "W/")
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
        assert client.get(path, headers={"If-Match": tag}).status_code == 200

        changed = client.patch(path, json=document, headers={"If-Match": tag})
        again = client.patch(path, json=document, headers={"If-Match": tag})

        assert (changed.status_code, again.status_code) == (200, 412)
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 200
        next_tag = changed.headers["ETag"]
        assert client.delete(path, headers={"If-Match": next_tag}).status_code == 200


@pytest.mark.parametrize("proxy", [{"X_ACCEL_REDIRECT": "/stored-files"}], indirect=True)
def test_nginx_sends_files_that_the_server_permits(world: World, proxy: str) -> None:
    content = os.urandom(3 * 2**20)
    world.app.extensions["storage"].put("images/large.png", content, "image/png")
    url = f"{proxy}/files/images/large.png"

    with httpx.Client(timeout=30) as client:
        whole = client.get(url)
        assert (whole.status_code, whole.content == content) == (200, True)
        assert whole.headers["Content-Type"] == "image/png"
        assert whole.headers["Cache-Control"] == "no-cache"
        assert whole.headers["X-Content-Type-Options"] == "nosniff"
        assert whole.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        part = client.get(url, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, content[5:10])
        assert client.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
        assert client.get(f"{proxy}/files/images/none.png").status_code == 404
        assert client.get(f"{proxy}/stored-files/images/large.png").status_code == 404
