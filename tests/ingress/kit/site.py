"""A site served by nginx: files with validators, ranges and gzip, redirects, errors, cookies, an answer of unknown length."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .certificates import Leaf
from .programs import ProgramError, find, free_port

CONF = """
pid {work}/nginx.pid;
error_log {work}/nginx.log;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; text/css css; application/json json; application/octet-stream bin; }}
    access_log off;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    client_max_body_size 0;
    absolute_redirect off;
    ssl_protocols TLSv1.2 TLSv1.3;
    gzip on;
    gzip_vary on;
    gzip_min_length 100;
    gzip_types text/css application/json;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{h2_port} http2;
        {tls}
        root {work}/site;
        location / {{ add_header Cache-Control "max-age=60"; }}
        location = /cookie {{ add_header Set-Cookie "a=b; Path=/; HttpOnly"; add_header Set-Cookie "c=d"; return 200 "ok\\n"; }}
        location = /moved {{ return 301 /index.html; }}
        location = /found {{ return 302 /index.html; }}
        location = /empty {{ return 204; }}
        location = /teapot {{ return 418 "short and stout\\n"; }}
        location = /forbidden {{ deny all; }}
        location = /old {{ add_header Pragma no-cache; add_header Expires "0"; return 200 "old\\n"; }}
    }}
}}
"""


class Site:
    """nginx with its files under `work`: on `port` HTTP/1, on `h2_port` HTTP/2 without TLS, on `tls_port` both with TLS,
    where a certificate is given. ProgramError where it is not installed."""

    def __init__(self, work: Path, certificate: Leaf | None = None) -> None:
        nginx = find("nginx")
        if not nginx:
            raise ProgramError("nginx is not installed: type `sudo apt-get install -y nginx-light`")
        work.mkdir(parents=True, exist_ok=True)
        self.port, self.h2_port, self.tls_port = free_port(), free_port(), free_port()
        tls = f"listen 127.0.0.1:{self.tls_port} ssl http2; ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};" if certificate else ""
        files = work / "site"
        files.mkdir(exist_ok=True)
        (files / "index.html").write_text("<!doctype html><html><head><link rel=stylesheet href=a.css></head><body>" + "<p>hythe</p>" * 200 + "</body></html>\n")
        (files / "a.css").write_text("p { margin: 0 }\n" * 50)
        (files / "a.json").write_text('{"a": [' + ", ".join(map(str, range(300))) + "]}\n")
        (files / "large.bin").write_bytes(bytes(range(256)) * 16_384)
        (files / "small.bin").write_bytes(b"0123456789")
        (work / "nginx.conf").write_text(CONF.format(work=work, port=self.port, h2_port=self.h2_port, tls=tls))
        self._command = [nginx, "-e", str(work / "nginx.log"), "-p", str(work), "-c", str(work / "nginx.conf")]
        # It goes to the background when it listens.
        done = subprocess.run(self._command, capture_output=True, text=True)
        if done.returncode:
            raise ProgramError(f"nginx does not start: {done.stderr}")

    def stop(self) -> None:
        subprocess.run([*self._command, "-s", "stop"], capture_output=True)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
