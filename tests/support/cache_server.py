"""A binary cache behind HTTP PUT that audits its clients and can misbehave.

It keeps blobs in a directory, writes down every request, and checks at the
moment of publication: a narinfo that arrives before its NAR or before its
references, or anything that is sent again although its narinfo is there, is a
violation. `server.fault` may make any request go wrong.
"""

import http.server
import os
import select
import socket
import struct
import threading
import time

import binary_cache
import children

MAX_BODY_BYTES = 1 << 30


class Fault:
    """What to do instead of answering properly.

    kind is one of:
      status        answer `status` with `headers`, after reading the body
      early_status  the same without reading the body, then close
      reset         RST after `after` bytes of the request's body
      truncate      a response that promises more than it sends, then close;
                    to HEAD, which has no body, half of its first header
      hang          neither read nor answer until the client goes
      close         read everything, store nothing, close without an answer
      lost_answer   do what was asked, then close without an answer
    """

    def __init__(self, kind, status=500, headers=None, after=0):
        self.kind = kind
        self.status = status
        self.headers = headers or {}
        self.after = after


class Request:
    """A line of the server's diary. `status` 0: no answer was given."""

    def __init__(self, method, key, headers):
        self.method = method
        self.key = key
        self.headers = headers
        self.time = time.monotonic()
        self.status = 0
        self.fault = None

    def __repr__(self):
        return f"{self.method} {self.key} {self.status} {self.fault or ''}"


class CacheServer:
    """Serves `directory`; `fault(request)` returns a Fault or None.

    If `authorizations` is a set, requests need one of these Authorization
    header values.
    """

    def __init__(self, directory, fault=None, port=0):
        self.directory = directory
        self.cache = binary_cache.BinaryCache(directory)
        self.fault = fault or (lambda request: None)
        self.authorizations = None
        self.requests = []
        self.violations = []
        self.published_nars = set()
        self.unanswered = set()
        self.hanging = 0
        self.open_connections = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        os.makedirs(os.path.join(directory, "nar"), exist_ok=True)
        owner = self

        class Handler(_Handler):
            server_owner = owner

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            allow_reuse_address = True

            def handle_error(self, request, client_address):
                """Clients that go away are what the tests are about."""

        self.http = Server(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.http.serve_forever,
                                       kwargs={"poll_interval": 0.05},
                                       daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    # --- What tests ask ----------------------------------------------------

    def wait_idle(self):
        """Until no connection is open: what a dead client sent is settled."""
        children.wait_until(
            lambda: not self.connections_in_kernel()
            and self.open_connections == 0, 60,
            "the cache server's clients to go")

    def connections_in_kernel(self):
        """Established or half-closed by the client, accepted or not."""
        mine = f":{self.port:04X}"
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        return sum(1 for row in rows
                   if row[1].endswith(mine) and row[3] in ("01", "08"))

    def count(self, method, key_part="", status=None):
        with self.lock:
            return sum(1 for request in self.requests
                       if request.method == method
                       and key_part in request.key
                       and (status is None or request.status == status))

    # --- Auditing ----------------------------------------------------------

    def audit_put(self, key):
        """A PUT has begun: is it of something that is published already?

        A client that got no answer (not even an error) over a connection that
        it had used before may repeat the request: HTTP libraries do.
        """
        if key in self.unanswered:
            return
        if key.endswith(".narinfo") and os.path.exists(self.cache.file(key)):
            self.violate(f"{key} sent again")
        if key in self.published_nars:
            self.violate(f"{key} sent again after its narinfo")

    def audit_published(self, key):
        for problem in self.cache.problems_of(key):
            self.violate(f"half-visible: {problem}")
        with open(self.cache.file(key), encoding="utf-8") as file:
            for line in file:
                if line.startswith("URL: "):
                    with self.lock:
                        self.published_nars.add(line[5:].strip())

    def violate(self, text):
        with self.lock:
            self.violations.append(text)


class _Disconnected(Exception):
    """The connection is no use any more."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_owner = None

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server_owner.lock:
            self.server_owner.open_connections += 1

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass
        finally:
            with self.server_owner.lock:
                self.server_owner.open_connections -= 1

    def log_message(self, *arguments):
        """The diary is enough."""

    # --- Requests ----------------------------------------------------------

    def do_GET(self):
        self.serve(self.get)

    def do_HEAD(self):
        self.serve(self.get)

    def do_PUT(self):
        self.serve(self.put)

    def serve(self, answer):
        owner = self.server_owner
        key = self.path.split("?")[0].lstrip("/")
        request = Request(self.command, key, dict(self.headers.items()))
        with owner.lock:
            owner.requests.append(request)
        fault = owner.fault(request)
        try:
            if ".." in key:
                self.answer(request, 400)
            elif fault:
                request.fault = fault.kind
                self.misbehave(request, fault, answer)
            elif (owner.authorizations is not None and self.headers.get(
                    "Authorization") not in owner.authorizations):
                self.read_body()
                self.answer(request, 401)
            else:
                answer(request)
        except (_Disconnected, OSError):
            self.close_connection = True

    def get(self, request):
        try:
            with open(self.server_owner.cache.file(request.key), "rb") as file:
                body = file.read()
        except (FileNotFoundError, IsADirectoryError):
            self.answer(request, 404)
            return
        self.answer(request, 200, body)

    def put(self, request):
        owner = self.server_owner
        owner.audit_put(request.key)
        body = self.read_body()
        file = owner.cache.file(request.key)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        temporary = f"{file}.{threading.get_ident()}.part"
        with open(temporary, "wb") as out:
            out.write(body)
        os.replace(temporary, file)
        if request.key.endswith(".narinfo"):
            owner.audit_published(request.key)
        self.answer(request, 201)

    # --- Bytes -------------------------------------------------------------

    def read_body(self, limit=MAX_BODY_BYTES):
        """The request's body, or its first `limit` bytes."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self.read_chunks(limit)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(min(length, limit))
        if len(body) < min(length, limit):
            raise _Disconnected
        return body

    def read_chunks(self, limit):
        pieces = []
        total = 0
        while total < limit:
            line = self.rfile.readline(1024)
            if not line.endswith(b"\n"):
                raise _Disconnected
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while self.rfile.readline(1024) not in (b"\r\n", b"\n", b""):
                    pass
                break
            piece = self.rfile.read(min(size, limit - total))
            total += len(piece)
            pieces.append(piece)
            if total < limit and self.rfile.read(2) != b"\r\n":
                raise _Disconnected
        return b"".join(pieces)

    def answer(self, request, status, body=b"", headers=None):
        request.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- Misbehaving -------------------------------------------------------

    def misbehave(self, request, fault, answer):
        if fault.kind == "status":
            self.read_body()
            self.answer(request, fault.status, b"not today\n", fault.headers)
        elif fault.kind == "early_status":
            self.answer(request, fault.status, b"not today\n",
                        {**fault.headers, "Connection": "close"})
            self.close_connection = True
        elif fault.kind == "reset":
            self.read_body(fault.after)
            self.reset()
        elif fault.kind == "truncate":
            self.read_body()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Len"
                             + (b"" if self.command == "HEAD" else
                                b"gth: 1000\r\n\r\nStorePath: /half"))
            self.close_connection = True
        elif fault.kind == "hang":
            self.hang()
        elif fault.kind == "close":
            self.read_body()
            self.close_connection = True
        elif fault.kind == "lost_answer":
            answer_bytes, self.wfile = self.wfile, _Nowhere()
            answer(request)
            self.wfile = answer_bytes
            self.server_owner.unanswered.add(request.key)
            request.status = 0
            self.close_connection = True
        else:
            raise ValueError(fault.kind)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise _Disconnected

    def hang(self):
        """Until the client goes or the server stops."""
        owner = self.server_owner
        with owner.lock:
            owner.hanging += 1
        try:
            poll = select.poll()
            poll.register(self.connection, select.POLLRDHUP | select.POLLHUP)
            while not owner.stopping.is_set() and not poll.poll(50):
                pass
        finally:
            with owner.lock:
                owner.hanging -= 1
        raise _Disconnected


class _Nowhere:
    """Takes an answer that nobody shall see."""

    def write(self, data):
        return len(data)

    def flush(self):
        pass

    def close(self):
        pass

