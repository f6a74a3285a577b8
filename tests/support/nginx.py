"""nginx on loopback as a binary cache that takes PUT."""

import os
import socket

import children

CONFIGURATION = """\
daemon off;
master_process off;
pid {base}/nginx.pid;
error_log {base}/error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
  access_log {base}/access.log;
  client_body_temp_path {base}/body;
  proxy_temp_path {base}/proxy;
  fastcgi_temp_path {base}/fastcgi;
  uwsgi_temp_path {base}/uwsgi;
  scgi_temp_path {base}/scgi;
  client_max_body_size 0;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    root {base}/cache;
    dav_methods PUT;
    create_full_put_path on;
    dav_access user:rw group:r all:r;
  }}
}}
"""


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """Serves and fills <base>/cache; started by the constructor."""

    def __init__(self, base):
        self.base = base
        self.directory = os.path.join(base, "cache")
        os.makedirs(self.directory, exist_ok=True)
        self.process = None
        # nginx cannot bind port 0 and tell; another program may take the port
        # between the probe and the start, so that more than one try is due.
        for _ in range(10):
            if self.try_start(free_port()):
                return
        raise AssertionError(f"nginx does not start\n{self.errors()}")

    def try_start(self, port):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        configuration = os.path.join(self.base, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(base=self.base, port=port,
                                            user=user))
        self.process = children.Child(
            ["nginx", "-p", self.base, "-e",
             os.path.join(self.base, "error.log"), "-c", configuration],
            {"PATH": "/usr/sbin:/usr/bin:/bin"},
            os.path.join(self.base, "nginx.log"))
        children.wait_until(
            lambda: not self.process.running() or self.answers(), 20,
            "nginx to answer", self.errors)
        return self.process.running()

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5):
                return os.path.exists(os.path.join(self.base, "nginx.pid"))
        except OSError:
            return False

    def errors(self):
        try:
            with open(os.path.join(self.base, "error.log"),
                      encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return self.process.log_tail() if self.process else ""

    def stop(self):
        if self.process:
            self.process.end()
            self.process = None
