"""What the proxy talks to: caches that tests can break, and a DNS server."""

import http.server
import os
import socket
import ssl
import subprocess
import threading


# Headers that keep nginx from keeping an answer, unless it is told otherwise.
UNFRIENDLY = {"Vary": "*", "Cache-Control": "no-store", "Set-Cookie": "a=b"}


class Origin:
    """A binary cache on loopback. `files` are its contents: {path: bytes};
    below `directory`, if there is one, are more.

    `status` makes it answer everything with that; `truncate` makes it break
    off in the middle of a body; `gate`, an Event, holds answers back until it
    is set. `requests` are (method, path, Host); `server_names` what clients
    asked for by TLS.
    """

    def __init__(self, files=None, tls=None, directory=None):
        self.files = dict(files or {})
        self.tls = tls
        self.directory = directory
        self.status = None
        self.truncate = False
        self.gate = None
        self.requests = []
        self.server_names = []
        self.lock = threading.Lock()
        self.port = 0
        self.http = None
        self.start()

    def start(self):
        """Starts it, on the same port as before if there was one."""
        owner = self

        class Handler(_Handler):
            origin = owner

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

            def handle_error(self, request, client_address):
                """nginx goes away when it likes."""

        self.http = Server(("127.0.0.1", self.port), Handler)
        self.port = self.http.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            context.sni_callback = self.note_server_name
            self.http.socket = context.wrap_socket(
                self.http.socket, server_side=True,
                do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.http.serve_forever,
                                       kwargs={"poll_interval": 0.02},
                                       daemon=True)
        self.thread.start()

    def note_server_name(self, _connection, name, _context):
        self.server_names.append(name)

    def stop(self):
        """Nobody listens any more. Does nothing if that is so already."""
        if self.http:
            self.http.shutdown()
            self.http.server_close()
            self.thread.join()
            self.http = None

    def body(self, path):
        if path in self.files:
            return self.files[path]
        file = os.path.join(self.directory or "/nowhere", path.lstrip("/"))
        if not os.path.isfile(file):
            return None
        with open(file, "rb") as source:
            return source.read()

    def count(self, path):
        with self.lock:
            return sum(1 for _, asked, _ in self.requests if asked == path)


class _Handler(http.server.BaseHTTPRequestHandler):
    # One request a connection: stopping leaves nothing behind.
    protocol_version = "HTTP/1.0"
    origin = None

    def log_message(self, *arguments):
        """`requests` is enough."""

    def do_GET(self):
        origin = self.origin
        with origin.lock:
            origin.requests.append(
                (self.command, self.path, self.headers.get("Host")))
        if origin.gate:
            origin.gate.wait(60)
        body = origin.body(self.path)
        if origin.status:
            self.answer(origin.status, b"in trouble\n")
        elif body is None:
            self.answer(404, b"not here\n")
        else:
            self.answer(200, body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def answer(self, status, body):
        """All of `body`, or the range of it that was asked for."""
        wanted = self.headers.get("Range")
        size = len(body)
        if wanted and status == 200:
            first, last = wanted.removeprefix("bytes=").split("-")
            body = body[int(first):int(last) + 1]
            status = 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(body)))
        for name, value in UNFRIENDLY.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(
                body[:len(body) // 2] if self.origin.truncate else body)


class NameServer:
    """Says of every name that it is at 127.0.0.1."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            question, client = self.socket.recvfrom(512)
            if question == b"stop":
                return
            # Header, the question as it came, and one address for its name.
            end = question.index(b"\0", 12) + 5
            self.socket.sendto(
                question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:end]
                + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1", client)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"stop", ("127.0.0.1", self.port))
        self.thread.join()
        self.socket.close()


def make_authority(directory, name="ca"):
    """A certificate authority: (certificate file, key file)."""
    certificate, key = (os.path.join(directory, f"{name}.{suffix}")
                        for suffix in ("crt", "key"))
    openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN={name}",
            "-keyout", key, "-out", certificate)
    return certificate, key


def make_certificate(directory, authority, host):
    """A certificate for a host: (certificate file, key file)."""
    base = os.path.join(directory, host)
    openssl("req", *NEW_KEY, "-subj", f"/CN={host}", "-addext",
            f"subjectAltName=DNS:{host}", "-keyout", f"{base}.key",
            "-out", f"{base}.csr")
    openssl("x509", "-req", "-in", f"{base}.csr", "-CA", authority[0],
            "-CAkey", authority[1], "-CAcreateserial", "-days", "2",
            "-copy_extensions", "copy", "-out", f"{base}.crt")
    return f"{base}.crt", f"{base}.key"


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
           "-nodes")


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True,
                   stdin=subprocess.DEVNULL)
