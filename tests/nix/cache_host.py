"""nginx as services.nix-builder.{proxy,uploadEndpoint} configure it.

The modules are evaluated, and what they give to services.nginx is put where
NixOS puts it: commonHttpConfig before the servers, a server block for each
virtual host.
"""

import http.client
import json
import os
import sys

import support

sys.path.insert(0, os.path.join(support.ROOT, "tests", "support"))

import children  # noqa: E402
import nginx  # noqa: E402

# Paths that nginx would use below its prefix, and who it is.
SURROUNDINGS = """\
daemon off;
master_process off;
{user}
pid {base}/nginx.pid;
error_log {base}/error.log info;
events {{ worker_connections 512; }}
http {{
  access_log {base}/other.log;
  client_body_temp_path {base}/body;
  proxy_temp_path {base}/temp;
  fastcgi_temp_path {base}/fastcgi;
  uwsgi_temp_path {base}/uwsgi;
  scgi_temp_path {base}/scgi;
  {http}
  {servers}
}}
"""
SERVER = "server {{\n{listen}server_name {names};\n{inside}}}\n"


def evaluate(module):
    """What a configuration, given as data, comes to."""
    text = json.dumps(json.dumps(module)).replace("${", "\\${")
    return support.Rendered(support.nix_value(
        f"(import {support.HERE}/eval.nix {{ module = builtins.fromJSON {text};"
        " }).rendered"))


def nixos_text(base, made):
    servers = "".join(
        SERVER.format(
            listen="".join(f"listen {one['addr']}:{one['port']};\n"
                           for one in host["listen"]),
            names=" ".join([host["serverName"], *host["serverAliases"]]),
            inside=host["extraConfig"])
        for host in made["virtualHosts"].values())
    return SURROUNDINGS.format(
        base=base, user="user root;" if os.geteuid() == 0 else "",
        http=made["commonHttpConfig"], servers=servers)


class Answer:
    """Of an HTTP server; `tier` is its X-Cache-Status."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.tier = response.headers.get("X-Cache-Status")
        self.body = response.read()

    def __repr__(self):
        return f"{self.status} {self.tier} {self.body[:60]!r}"


class CacheHost:
    """A running nginx. `proxy` and `upload` are the options of the modules;
    ports, addresses and directories are added, `change` may change the text.
    """

    def __init__(self, base, proxy=None, upload=None, change=lambda text: text):
        self.base = base
        self.uploads = os.path.join(base, "uploads")
        self.access_log = os.path.join(base, "access.log")
        self.process = None
        os.makedirs(self.uploads, exist_ok=True)
        # A port that was free may be taken a moment later.
        for _ in range(5):
            self.port, self.upload_port = nginx.free_port(), nginx.free_port()
            made = evaluate(
                {"services": {"nix-builder": self.options(proxy, upload)}})
            text = change(nixos_text(base, made.nginx))
            if self.start(text):
                return
        raise AssertionError(f"nginx does not start\n{self.errors()}")

    def options(self, proxy, upload):
        both = {"enable": True, "listenAddresses": ["127.0.0.1"]}
        found = {}
        if proxy is not None:
            found["proxy"] = {
                **both, "listenPort": self.port, "resolver": ["127.0.0.1"],
                "cacheDir": os.path.join(self.base, "cache"),
                "accessLog": "file", "accessLogFile": self.access_log, **proxy}
        if upload is not None:
            found["uploadEndpoint"] = {
                **both, "port": self.upload_port, "directory": self.uploads,
                **upload}
        return found

    def start(self, text):
        file = os.path.join(self.base, "nginx.conf")
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        pid_file = os.path.join(self.base, "nginx.pid")
        self.process = children.Child(
            ["nginx", "-p", self.base, "-c", file,
             "-e", os.path.join(self.base, "error.log")],
            {"PATH": "/usr/sbin:/usr/bin:/bin"},
            os.path.join(self.base, "nginx.log"))
        # nginx listens before it writes its pid.
        children.wait_until(
            lambda: not self.process.running() or os.path.exists(pid_file), 20,
            "nginx to start", self.errors)
        return self.process.running()

    def stop(self):
        self.process.end()

    def errors(self):
        try:
            with open(os.path.join(self.base, "error.log"),
                      encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return self.process.log_tail() if self.process else ""

    # --- Requests ----------------------------------------------------------

    def ask(self, method, path, body=None, headers=None, port=None,
            source="127.0.0.1"):
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.port, timeout=60 * children.SLOWNESS,
            source_address=(source, 0))
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, headers=headers)

    def put(self, path, body, headers=None, **options):
        return self.ask("PUT", path, body, headers, port=self.upload_port,
                        **options)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def upload_url(self):
        return f"http://127.0.0.1:{self.upload_port}"

    def log_lines(self, path, count):
        """The first `count` lines of the access log about a path. They are
        written when the client has its answer already."""
        def read():
            with open(self.access_log, encoding="utf-8") as file:
                found = [line for line in file if f" {path} " in line]
            return found if len(found) >= count else None
        return children.wait_until(read, 30, f"{count} x {path} in the log",
                                   self.errors)
