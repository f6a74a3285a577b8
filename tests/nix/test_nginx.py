"""The cache host that the modules render, run: tiers, cache, uploads."""

import base64
import hashlib
import os
import shutil
import socket
import tempfile
import threading
import unittest
import uuid

import cache_host
import children
import origins
import private_nix

UPSTREAM = "cache.nixos.test"
KIB = 1024


class World(unittest.TestCase):
    """Two caches, DNS, and as many cache hosts as are asked for."""

    def setUp(self):
        # Short, since the sockets of Nix live there.
        self.base = tempfile.mkdtemp(prefix="nixq-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.base, True)
        self.names = origins.NameServer()
        self.addCleanup(self.names.stop)
        self.authority = origins.make_authority(self.base)
        self.local = self.make_origin()
        self.upstream = self.make_origin(tls=origins.make_certificate(
            self.base, self.authority, UPSTREAM))

    def make_origin(self, **options):
        origin = origins.Origin(**options)
        self.addCleanup(origin.stop)
        return origin

    def make_host(self, upload=None, change=lambda text: text, **proxy):
        host = cache_host.CacheHost(
            tempfile.mkdtemp(prefix="h", dir=self.base),
            {
                "localUrl": f"http://127.0.0.1:{self.local.port}",
                "upstream": f"https://{UPSTREAM}:{self.upstream.port}",
                "resolver": [f"127.0.0.1:{self.names.port}"],
                "caFile": self.authority[0],
                **proxy,
            }, upload, change)
        self.addCleanup(host.stop)
        return host

    def expect(self, answer, status, tier, body=None):
        self.assertEqual((status, tier), (answer.status, answer.tier), answer)
        if body is not None:
            self.assertEqual(body, answer.body)

    def until_tier(self, host, path, tier):
        """Asks until the answer comes from `tier`: times are over when nginx
        says so."""
        def ask():
            answer = host.get(path)
            return answer if answer.tier == tier else None
        return children.wait_until(ask, 30, f"{path} to be {tier}",
                                   host.errors)


class Tiers(World):

    def setUp(self):
        super().setUp()
        self.host = self.make_host()

    def test_the_local_server_comes_first(self):
        self.local.files["/a.narinfo"] = b"ours"
        self.upstream.files["/a.narinfo"] = b"theirs"
        for _ in range(2):
            self.expect(self.host.get("/a.narinfo"), 200, "LOCAL", b"ours")
        self.assertEqual(2, self.local.count("/a.narinfo"))
        self.assertEqual(0, self.upstream.count("/a.narinfo"))

    def test_miss_then_hit(self):
        body = os.urandom(300 * KIB)
        self.upstream.files["/nar/b.nar"] = body
        self.expect(self.host.get("/nar/b.nar"), 200, "MISS", body)
        again = self.host.get("/nar/b.nar")
        self.expect(again, 200, "HIT", body)
        self.assertNotIn("Set-Cookie", again.headers)
        host = f"{UPSTREAM}:{self.upstream.port}"
        self.assertEqual([("GET", "/nar/b.nar", host)], self.upstream.requests)
        self.assertEqual({UPSTREAM}, set(self.upstream.server_names))

    def test_a_query_is_part_of_the_name(self):
        self.upstream.files["/nar/q.nar?hash=1"] = b"one"
        self.upstream.files["/nar/q.nar?hash=2"] = b"two"
        for query, body in ("1", b"one"), ("2", b"two"), ("1", b"one"):
            answer = self.host.get(f"/nar/q.nar?hash={query}")
            self.assertEqual(body, answer.body)

    def test_head_fills_the_cache(self):
        self.upstream.files["/h.narinfo"] = b"head"
        answer = self.host.ask("HEAD", "/h.narinfo")
        self.expect(answer, 200, "MISS", b"")
        self.assertEqual("4", answer.headers["Content-Length"])
        self.expect(self.host.get("/h.narinfo"), 200, "HIT", b"head")

    def test_not_found_is_remembered_of_upstream_only(self):
        self.expect(self.host.get("/c.narinfo"), 404, "MISS")
        self.expect(self.host.get("/c.narinfo"), 404, "HIT")
        self.assertEqual(1, self.upstream.count("/c.narinfo"))
        # What is built now is there now.
        self.local.files["/c.narinfo"] = b"built"
        self.expect(self.host.get("/c.narinfo"), 200, "LOCAL", b"built")

    def test_ranges(self):
        body = os.urandom(100 * KIB)
        self.local.files["/nar/l.nar"] = body
        self.upstream.files["/nar/u.nar"] = body
        for path, tier in (("/nar/l.nar", "LOCAL"), ("/nar/u.nar", "MISS"),
                           ("/nar/u.nar", "HIT")):
            with self.subTest(tier):
                answer = self.host.get(path, Range="bytes=1000-2999")
                self.expect(answer, 206, tier, body[1000:3000])
        # The first range has fetched all of it.
        self.expect(self.host.get("/nar/u.nar"), 200, "HIT", body)
        self.assertEqual(1, self.upstream.count("/nar/u.nar"))

    def test_nothing_can_be_written(self):
        for method in "PUT", "POST", "DELETE", "MKCOL":
            for path in "/d.narinfo", "/nix-cache-info":
                with self.subTest(method, path=path):
                    answer = self.host.ask(method, path, b"x")
                    self.assertEqual(403, answer.status)
        self.assertEqual([], self.local.requests + self.upstream.requests)

    def test_eight_at_once_cause_one_request(self):
        body = os.urandom(200 * KIB)
        self.upstream.files["/nar/e.nar"] = body
        self.upstream.gate = threading.Event()
        self.addCleanup(self.upstream.gate.set)
        answers = []
        clients = [threading.Thread(target=lambda: answers.append(
            self.host.get("/nar/e.nar"))) for _ in range(8)]
        for client in clients:
            client.start()
        children.wait_until(
            lambda: self.local.count("/nar/e.nar") == 8
            and self.upstream.count("/nar/e.nar"), 30,
            "eight clients to be on their way", self.host.errors)
        self.upstream.gate.set()
        for client in clients:
            client.join()
        self.assertEqual([(200, body)] * 8,
                         [(answer.status, answer.body) for answer in answers])
        self.assertEqual(1, self.upstream.count("/nar/e.nar"))

    def test_what_broke_off_is_not_kept(self):
        body = os.urandom(100 * KIB)
        self.upstream.files["/nar/t.nar"] = body
        self.upstream.truncate = True
        with self.assertRaises(cache_host.http.client.IncompleteRead):
            self.host.get("/nar/t.nar")
        self.upstream.truncate = False
        self.expect(self.host.get("/nar/t.nar"), 200, "MISS", body)

    def test_nix_cache_info_needs_no_tier(self):
        self.local.stop()
        self.upstream.stop()
        answer = self.host.get("/nix-cache-info")
        self.expect(answer, 200, "OWN",
                    b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n")
        self.assertEqual("text/x-nix-cache-info",
                         answer.headers["Content-Type"])

    def test_the_log_says_where_it_came_from(self):
        self.local.files["/log1.narinfo"] = b"1"
        self.upstream.files["/log2.narinfo"] = b"2"
        for path in "/log1.narinfo", "/log2.narinfo", "/log2.narinfo":
            self.host.get(path)
        self.host.ask("PUT", "/log3.narinfo", b"")
        found = [(line.split("X-Cache-Status=")[1].split()[0],
                  line.split('" ')[1].split()[0])
                 for number, count in ((1, 1), (2, 2), (3, 1))
                 for line in self.host.log_lines(
                     f"/log{number}.narinfo", count)]
        self.assertEqual([("LOCAL", "200"), ("MISS", "200"), ("HIT", "200"),
                          ("OWN", "403")], found)


class Trouble(World):

    def test_local_server_in_trouble(self):
        host = self.make_host()
        self.upstream.files["/a.narinfo"] = b"theirs"
        self.local.status = 500
        self.expect(host.get("/a.narinfo"), 200, "MISS", b"theirs")
        self.local.stop()
        self.upstream.files["/b.narinfo"] = b"more"
        self.expect(host.get("/b.narinfo"), 200, "MISS", b"more")
        self.expect(host.get("/b.narinfo"), 200, "HIT", b"more")

    def test_its_trouble_can_be_shown(self):
        host = self.make_host(fallthroughOn=[404])
        self.upstream.files["/a.narinfo"] = b"theirs"
        self.local.status = 500
        self.expect(host.get("/a.narinfo"), 500, "LOCAL")
        self.assertEqual([], self.upstream.requests)

    def test_upstream_down(self):
        host = self.make_host()
        self.local.files["/a.narinfo"] = b"ours"
        self.upstream.files["/b.narinfo"] = b"theirs"
        host.get("/b.narinfo")
        self.upstream.stop()
        self.expect(host.get("/a.narinfo"), 200, "LOCAL", b"ours")
        self.expect(host.get("/b.narinfo"), 200, "HIT", b"theirs")
        self.assertEqual(502, host.get("/c.narinfo").status)
        # Errors are not remembered.
        self.upstream.files["/c.narinfo"] = b"back"
        self.upstream.start()
        self.expect(host.get("/c.narinfo"), 200, "MISS", b"back")

    def test_a_miss_while_offline_can_be_a_404(self):
        host = self.make_host(offlineMissAs404=True)
        self.upstream.files["/a.narinfo"] = b"theirs"
        host.get("/a.narinfo")
        self.upstream.stop()
        self.expect(host.get("/a.narinfo"), 200, "HIT", b"theirs")
        self.expect(host.get("/b.narinfo"), 404, "OFFLINE-MISS")
        self.expect(host.get("/b.narinfo"), 404, "OFFLINE-MISS")

    def test_what_is_too_old(self):
        host = self.make_host(validity="1s", negativeTtl="1s")
        self.upstream.files["/a.narinfo"] = b"old"
        host.get("/a.narinfo")
        host.get("/b.narinfo")
        # Asked for again, when its time is over.
        self.upstream.files["/a.narinfo"] = b"new"
        self.upstream.files["/b.narinfo"] = b"now there"
        self.expect(self.until_tier(host, "/a.narinfo", "EXPIRED"), 200,
                    "EXPIRED", b"new")
        self.expect(self.until_tier(host, "/b.narinfo", "EXPIRED"), 200,
                    "EXPIRED", b"now there")
        # And still good while upstream is in trouble, or gone.
        self.upstream.status = 503
        self.expect(self.until_tier(host, "/a.narinfo", "STALE"), 200, "STALE",
                    b"new")
        self.upstream.stop()
        self.expect(self.until_tier(host, "/b.narinfo", "STALE"), 200,
                    "STALE", b"now there")

    def test_upstream_must_be_who_it_says(self):
        stranger = origins.make_authority(self.base, "stranger")
        host = self.make_host(caFile=stranger[0])
        self.upstream.files["/a.narinfo"] = b"theirs"
        self.assertEqual(502, host.get("/a.narinfo").status)
        self.assertIn("certificate verify", host.errors())
        self.assertEqual([], self.upstream.requests)

    def test_starts_without_dns(self):
        host = self.make_host(resolver=["127.0.0.1:1"])
        self.local.files["/a.narinfo"] = b"ours"
        self.expect(host.get("/a.narinfo"), 200, "LOCAL", b"ours")

    def test_upstream_below_a_path(self):
        self.upstream.files["/cache/nixpkgs/a.narinfo"] = b"theirs"
        host = self.make_host(
            upstream=f"https://{UPSTREAM}:{self.upstream.port}/cache/nixpkgs/")
        self.expect(host.get("/a.narinfo"), 200, "MISS", b"theirs")

    def test_the_journal_gets_the_log(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(f"{self.base}/log")
        listener.settimeout(30)
        host = self.make_host(accessLog="syslog", change=lambda text:
                              text.replace("unix:/dev/log",
                                           f"unix:{self.base}/log"))
        self.local.files["/a.narinfo"] = b"ours"
        host.get("/a.narinfo")
        line = listener.recv(KIB * 4).decode()
        self.assertIn(' nginx: 127.0.0.1 "GET /a.narinfo HTTP/1.1" 200 ', line)
        self.assertIn("X-Cache-Status=LOCAL", line)


class Uploads(World):

    def setUp(self):
        super().setUp()
        self.host = self.make_host(upload={"allowedNetworks": ["127.0.0.1"]})

    def test_what_is_uploaded_is_there_at_once(self):
        self.local.files["/a.narinfo"] = b"local"
        self.assertEqual(201, self.host.put("/a.narinfo", b"sent").status)
        for port in self.host.upload_port, self.host.port:
            answer = self.host.ask("GET", "/a.narinfo", port=port)
            self.assertEqual((200, b"sent"), (answer.status, answer.body))
        self.expect(self.host.get("/a.narinfo"), 200, "UPLOADED")
        self.assertEqual([], self.local.requests)
        # The other tiers are still behind it.
        self.local.files["/b.narinfo"] = b"local"
        self.upstream.files["/c.narinfo"] = b"theirs"
        self.expect(self.host.get("/b.narinfo"), 200, "LOCAL", b"local")
        self.expect(self.host.get("/c.narinfo"), 200, "MISS", b"theirs")
        self.expect(self.host.get("/d.narinfo"), 404, "MISS")

    def test_big_bodies_and_new_folders(self):
        body = os.urandom(8 * KIB * KIB)
        self.assertEqual(201, self.host.put("/nar/big.nar", body).status)
        self.expect(self.host.get("/nar/big.nar"), 200, "UPLOADED", body)

    def test_from_elsewhere_only_reading(self):
        self.host.put("/a.narinfo", b"sent")
        answer = self.host.put("/a.narinfo", b"evil", source="127.0.0.2")
        self.assertEqual(403, answer.status)
        answer = self.host.ask("GET", "/a.narinfo", source="127.0.0.2",
                               port=self.host.upload_port)
        self.assertEqual((200, b"sent"), (answer.status, answer.body))

    def test_again(self):
        self.assertEqual(201, self.host.put("/a.narinfo", b"one").status)
        self.assertEqual(204, self.host.put("/a.narinfo", b"two").status)
        self.expect(self.host.get("/a.narinfo"), 200, "UPLOADED", b"two")

    def test_again_can_be_refused(self):
        host = self.make_host(upload={"allowOverwrite": False})
        self.assertEqual(201, host.put("/a.narinfo", b"one").status)
        self.assertEqual(409, host.put("/a.narinfo", b"two").status)
        self.expect(host.get("/a.narinfo"), 200, "UPLOADED", b"one")

    def test_clients_can_try_whether_they_may_upload(self):
        """As `queuectl check` does; what is said of the cache stays."""
        for upload in {}, {"allowOverwrite": False}:
            host = self.make_host(upload=upload)
            said = host.ask("GET", "/nix-cache-info", port=host.upload_port)
            for _ in range(2):
                self.assertIn(host.put("/nix-cache-info", b"x").status,
                              (201, 204))
            for port in host.upload_port, host.port:
                answer = host.ask("GET", "/nix-cache-info", port=port)
                self.assertEqual(200, answer.status)
                self.assertEqual(said.body, answer.body)

    def test_nothing_can_be_removed(self):
        self.host.put("/nar/a.nar", b"kept")
        for method in "DELETE", "POST", "MKCOL", "MOVE", "COPY":
            with self.subTest(method):
                answer = self.host.ask(
                    method, "/nar/a.nar", port=self.host.upload_port,
                    headers={"Destination": f"{self.host.upload_url}/b"})
                self.assertEqual(405, answer.status)
        self.expect(self.host.get("/nar/a.nar"), 200, "UPLOADED", b"kept")

    def test_places_that_are_not_for_uploads(self):
        with open(f"{self.host.uploads}/.tmp/half", "w",
                  encoding="ascii") as half:
            half.write("half")
        port = self.host.upload_port
        for path, status in (("/.tmp/x", 403), ("/../x", 400),
                             ("/%2e%2e/x", 400)):
            with self.subTest(path):
                self.assertEqual(status, self.host.put(path, b"x").status)
        self.assertEqual(403, self.host.ask("GET", "/.tmp/half",
                                            port=port).status)
        self.assertEqual(404, self.host.get("/.tmp/half").status)
        self.assertEqual([".tmp"], os.listdir(self.host.uploads))

    def test_with_a_password(self):
        file = os.path.join(self.base, "passwords")
        digest = base64.b64encode(hashlib.sha1(b"secret").digest()).decode()
        with open(file, "w", encoding="ascii") as out:
            out.write(f"ci:{{SHA}}{digest}\n")
        right, wrong = (
            {"Authorization": "Basic " + base64.b64encode(text).decode()}
            for text in (b"ci:secret", b"ci:guess"))
        both = self.make_host(upload={"basicAuthFile": file,
                                      "allowedNetworks": ["127.0.0.1"]})
        self.assertEqual(401, both.put("/a", b"x").status)
        self.assertEqual(401, both.put("/a", b"x", wrong).status)
        self.assertEqual(401, both.put("/nix-cache-info", b"x").status)
        self.assertEqual(401, both.put("/nix-cache-info", b"x", wrong).status)
        self.assertEqual(403, both.put("/a", b"x", right,
                                       source="127.0.0.2").status)
        self.assertEqual(201, both.put("/a", b"x", right).status)
        alone = self.make_host(upload={"basicAuthFile": file,
                                       "allowedNetworks": []})
        self.assertEqual(401, alone.put("/a", b"x",
                                        source="127.0.0.2").status)
        self.assertEqual(201, alone.put("/a", b"x", right,
                                        source="127.0.0.2").status)


class RealNix(World):
    """Nix as the client, with signatures required."""

    def test_copies_from_every_tier(self):
        nix = private_nix.PrivateNix(os.path.join(self.base, "n"))
        self.addCleanup(nix.remove)
        salt = uuid.uuid4().hex
        ours, our_key = nix.generate_key("cache-host-1")
        theirs, their_key = nix.generate_key("upstream-1")
        built, bought, sent = (
            nix.build(private_nix.chain(name, 2, salt))[0]
            for name in ("built", "bought", "sent"))

        for origin, path, key in ((self.local, built, ours),
                                  (self.upstream, bought, theirs)):
            origin.directory = tempfile.mkdtemp(dir=self.base)
            nix.run(["nix", "copy", "--to",
                     f"file://{origin.directory}?secret-key={key}", path])
        host = self.make_host(upload={"storeDir": nix.store_dir},
                              storeDir=nix.store_dir, priority=31)
        nix.run(["nix", "copy", "--to", f"{host.upload_url}?secret-key={ours}"
                 "&compression=zstd", sent])

        client = self.second_store("c", nix, [our_key, their_key])
        client.copy_from(host.url, [built, bought, sent])
        client.verify([built, bought, sent])
        for path, tier in ((built, "LOCAL"), (bought, "MISS"),
                           (sent, "UPLOADED")):
            digest = os.path.basename(path)[:32]
            self.assertIn(f"X-Cache-Status={tier} ", host.log_lines(
                f"/{digest}.narinfo", 1)[0])

        # A client that does not know upstream's key takes only ours.
        wary = self.second_store("w", nix, [our_key])
        wary.copy_from(host.url, [built])
        refused = wary.copy_from(host.url, [bought], check=False)
        self.assertNotEqual(0, refused.returncode)
        self.assertIn("signature", refused.stderr)
        self.assertFalse(wary.valid(bought))

    def second_store(self, name, nix, keys):
        store = private_nix.SecondStore(os.path.join(self.base, name), nix,
                                        keys)
        self.addCleanup(private_nix.remove_tree, store.base)
        return store


if __name__ == "__main__":
    unittest.main()
