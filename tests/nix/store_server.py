"""Serves this machine's Nix store over HTTP, with the signatures it has.

In the place of Harmonia, which Debian has not. It answers what Harmonia
answers (nix-cache-info, narinfo, the NAR as it is) and asks Nix for all of it,
but signs nothing itself.

    store_server.py ADDRESS PORT
"""

import glob
import http.server
import json
import os
import re
import socket
import subprocess
import sys

STORE = "/nix/store"
NARINFO = """\
StorePath: {path}
URL: nar/{hash}.nar
Compression: none
NarHash: {narHash}
NarSize: {narSize}
References: {references}
"""


def find(hash_part):
    """The valid path with this hash as Nix describes it, or None."""
    for path in glob.glob(f"{STORE}/{hash_part}-*"):
        said = subprocess.run(
            ["nix", "--extra-experimental-features", "nix-command",
             "path-info", "--json", path],
            capture_output=True, text=True, check=False)
        if said.returncode == 0:
            return json.loads(said.stdout)[0]
        print(said.stderr, file=sys.stderr, flush=True)
    return None


def narinfo(hash_part, info):
    text = NARINFO.format(
        hash=hash_part, path=info["path"], narHash=info["narHash"],
        narSize=info["narSize"],
        references=" ".join(map(os.path.basename, info["references"])))
    if "deriver" in info:
        text += f"Deriver: {os.path.basename(info['deriver'])}\n"
    return text + "".join(f"Sig: {s}\n" for s in info.get("signatures", []))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        match = re.fullmatch(r"/(nar/)?([0-9a-z]{32})\.(narinfo|nar)",
                             self.path)
        info = match and find(match.group(2))
        if self.path == "/nix-cache-info":
            self.answer(200, f"StoreDir: {STORE}\nPriority: 30\n".encode())
        elif not info:
            self.answer(404, b"not here\n")
        elif match.group(1):
            self.answer(200, subprocess.run(
                ["nix-store", "--dump", info["path"]], check=True,
                capture_output=True).stdout)
        else:
            self.answer(200, narinfo(match.group(2), info).encode())

    do_HEAD = do_GET

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    address_family = (socket.AF_INET6 if ":" in sys.argv[1]
                      else socket.AF_INET)


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
