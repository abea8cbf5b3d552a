"""Attaché, nginx and haproxy as processes with one mapping: `/any/…` goes to the recorder as it is, and so does `/tok/…`, which at Attaché carries a token."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kill"))
from recorder import Recorder  # noqa: E402
from rig import Process, Refused, free_ports  # noqa: E402  (found beside this folder)

USER = "megan"
TOKEN = "canary-token-of-megan"
READY_WITHIN_S = 20

ATTACHE = """\
listen:
  proxy: {listen}
  public: 127.0.0.1:{public}
  admin: 127.0.0.1:{admin}
store:
  sled: {{path: ./attache.db}}
providers:
  local:
    client_id: printpixie
    client_secret: not-used
    authorize_url: http://127.0.0.1:{upstream}/authorize
    token_url: http://127.0.0.1:{upstream}/token
    token_hosts: ["127.0.0.1:{upstream}"]
routes:
  - {{match: "/any/{{*rest}}", as: none, upstream: "http://127.0.0.1:{upstream}/any/{{rest}}"}}
  - {{match: "/tok/{{*rest}}", provider: local, upstream: "http://127.0.0.1:{upstream}/tok/{{rest}}"}}
{routes}"""

# Bodies stream and upstream connections are kept, as at Attaché; `proxy_pass` with a path is what makes nginx normalise.
NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream recorder {{ server 127.0.0.1:{upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{h2_port} http2;
    client_header_timeout 5s;
    client_body_timeout 5s;
    location /any/ {{
      proxy_pass http://recorder/any/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
    location / {{ return 404; }}
  }}
}}
"""

HAPROXY = """\
global
  maxconn 1000
  log /dev/null local0
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
  timeout http-request 5s
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  bind 127.0.0.1:{h2_port} proto h2
  http-request return status 404 unless {{ path_beg /any/ }}
  default_backend recorder
backend recorder
  server one 127.0.0.1:{upstream}
"""


class Proxy:
    """A process, its folder, its ports and its own recorder."""

    name, h2_port = "", None

    def __init__(self):
        self.recorder, self.folder, self.process = Recorder(), tempfile.mkdtemp(prefix="attache-differential-"), None

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def close(self):
        if self.process is not None:
            self.process.end()
        self.recorder.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Attache(Proxy):
    name = "attache"

    def __init__(self, binary, listen="127.0.0.1:{port}", routes="", env=None, connect=True):
        """`listen` is what stands behind `listen.proxy`, `routes` more lines under `routes`, where UPSTREAM is the recorder's port."""
        super().__init__()
        self.binary, self.port, admin, public = os.path.abspath(binary), *free_ports(3)
        self.admin = admin
        text = ATTACHE.format(listen=listen.format(port=self.port), public=public, admin=admin, upstream=self.recorder.port, routes=routes.replace("UPSTREAM", str(self.recorder.port)))
        self.file("routes.yaml", text)
        try:
            if connect:
                line = {"provider": "local", "end_user": USER, "access_token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"}
                self.command("connections", "import", "-c", "routes.yaml", text=json.dumps(line))
            self.process = Process([self.binary, "--log-format", "json", "run", "-c", "routes.yaml"], self.folder, "attache.log", {"RUST_LOG": "info", **(env or {})})
            self.process.start("attache is ready")
        except BaseException:
            self.close()
            raise

    def command(self, *arguments, text=None):
        done = subprocess.run([self.binary, *arguments], cwd=self.folder, input=text, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Refused(f"attache {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout


class Nginx(Proxy):
    name = "nginx"

    def __init__(self):
        super().__init__()
        os.chmod(self.folder, 0o755)
        self.port, self.h2_port = free_ports(2)
        path = self.file("nginx.conf", NGINX.format(folder=self.folder, port=self.port, h2_port=self.h2_port, upstream=self.recorder.port))
        self.process = Process([program("nginx"), "-c", path, "-e", os.path.join(self.folder, "error.log")], self.folder, "nginx.log")
        launch(self)

    def close(self):
        # A master that is killed leaves its workers.
        if self.process.child.poll() is None:
            self.process.terminate()
        super().close()


class Haproxy(Proxy):
    name = "haproxy"

    def __init__(self):
        super().__init__()
        self.port, self.h2_port = free_ports(2)
        path = self.file("haproxy.cfg", HAPROXY.format(port=self.port, h2_port=self.h2_port, upstream=self.recorder.port))
        self.process = Process([program("haproxy"), "-db", "-f", path], self.folder, "haproxy.log")
        launch(self)


def program(name):
    """Debian puts servers where only root's path looks."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def launch(proxy):
    """Starts it, and returns once its port takes connections."""
    proxy.process.launch()
    give_up = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", proxy.port), timeout=1).close()
            return
        except OSError as error:
            if proxy.process.child.poll() is not None or time.monotonic() > give_up:
                raise Refused(f"{proxy.name} did not start: {proxy.process.log()[-2000:]}") from error
            time.sleep(0.02)
