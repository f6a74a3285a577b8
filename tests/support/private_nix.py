"""A whole Nix of one's own in a temporary directory.

PrivateNix has a store, a state directory and (on request) a daemon of its
own, and never touches /nix. SecondStore is another machine's store with the
same store directory (a chroot store), which takes only what is signed.
"""

import json
import os
import re
import shutil
import subprocess

import children

BASE_SETTINGS = {
    "sandbox": "false",
    "build-users-group": "",
    "substituters": "",
    "experimental-features": "nix-command ca-derivations",
    "max-jobs": "2",
    "cores": "1",
}
PROGRAM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class NixFailed(AssertionError):
    """A Nix command that should have worked; its text is the message."""


def nix_version():
    text = subprocess.run(["nix", "--version"], capture_output=True, text=True,
                          check=True).stdout
    return tuple(int(part) for part in re.search(
        r"(\d+)\.(\d+)(?:\.(\d+))?", text).groups(default="0"))


def write_nix_conf(directory, settings):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "nix.conf"), "w",
              encoding="utf-8") as file:
        for name, value in settings.items():
            file.write(f"{name} = {value}\n")


class NixCommands:
    """What every store has: a place, an environment, commands."""

    environment = None
    store_dir = None

    def run(self, argv, check=True, limit=300, **variables):
        result = subprocess.run(
            [str(argument) for argument in argv],
            env={**self.environment, **variables}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", cwd="/",
            timeout=limit * children.SLOWNESS, check=False)
        if check and result.returncode != 0:
            raise NixFailed(f"{' '.join(map(str, argv))}: exit code "
                            f"{result.returncode}\n{result.stdout}"
                            f"{result.stderr}")
        return result

    def lines(self, argv, **options):
        return self.run(argv, **options).stdout.split()

    def initialise(self):
        """Makes the database. Nix does that with the store to itself: two
        first connections would wait for each other."""
        self.run(["nix-store", "--init"])

    def valid(self, path):
        return self.run(["nix-store", "--check-validity", path],
                        check=False).returncode == 0

    def closure(self, paths):
        return self.lines(["nix-store", "--query", "--requisites", *paths])

    def path_info(self, paths, *options):
        return json.loads(self.run(
            ["nix", "path-info", "--json", *options, *paths]).stdout)

    def collect_garbage(self):
        return self.run(["nix-store", "--gc"])


class PrivateNix(NixCommands):
    """A store of its own under `base` (keep it short: sockets live there)."""

    def __init__(self, base, hook=None, settings=None, environment=None):
        self.base = base
        self.store_dir = os.path.join(base, "store")
        self.state_dir = os.path.join(base, "var")
        self.roots_dir = os.path.join(self.state_dir, "gcroots", "arm-cache")
        self.conf_dir = os.path.join(base, "etc")
        self.socket = os.path.join(self.state_dir, "socket")
        self.daemon = None
        os.makedirs(os.path.join(base, "home"), exist_ok=True)
        os.makedirs(self.store_dir, exist_ok=True)
        os.makedirs(self.state_dir, exist_ok=True)
        self.settings = dict(BASE_SETTINGS)
        if hook:
            self.settings["post-build-hook"] = hook
        self.settings.update(settings or {})
        write_nix_conf(self.conf_dir, self.settings)
        self.environment = {
            "PATH": PROGRAM_PATH,
            "HOME": os.path.join(base, "home"),
            "XDG_CACHE_HOME": os.path.join(base, "home", "cache"),
            "NIX_STORE_DIR": self.store_dir,
            "NIX_STATE_DIR": self.state_dir,
            "NIX_LOG_DIR": os.path.join(base, "log"),
            "NIX_DATA_DIR": os.path.join(base, "share"),
            "NIX_LOCALSTATE_DIR": self.state_dir,
            "NIX_CONF_DIR": self.conf_dir,
            "NIX_DAEMON_SOCKET_PATH": self.socket,
            "NIX_USER_CONF_FILES": "/dev/null",
            **(environment or {}),
        }
        self.initialise()

    # --- The daemon --------------------------------------------------------

    def start_daemon(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        # The first to open a new store locks everybody else out to make its
        # schema, and two at once wait for each other for ever.
        subprocess.run(["nix-store", "--init"], check=True, timeout=60,
                       env={**self.environment, "NIX_REMOTE": ""})
        self.daemon = children.Child(
            ["nix-daemon", "--daemon"], self.environment,
            os.path.join(self.base, "nix-daemon.log"))
        children.wait_until(lambda: os.path.exists(self.socket), 30,
                            "the Nix daemon's socket", self.daemon.log_tail)
        self.environment["NIX_REMOTE"] = "daemon"

    def stop_daemon(self):
        if not self.daemon:
            return
        # Its workers are in sessions of their own.
        workers = children.descendants(self.daemon.pid)
        self.daemon.end()
        children.kill_all(workers)
        self.daemon = None
        self.environment.pop("NIX_REMOTE", None)

    def remove(self):
        """Ends the daemon and removes everything, read-only as it is."""
        self.stop_daemon()
        remove_tree(self.base)

    # --- Building ----------------------------------------------------------

    def build(self, expression, *options, check=True, limit=600, **variables):
        """Builds; returns the output paths (or, check=False, the result)."""
        result = self.run(["nix-build", "--no-out-link", *options, "-E",
                           expression], check=check, limit=limit, **variables)
        return result.stdout.split() if check else result

    def add_text(self, name, text):
        """A path without references, made without any build or hook."""
        file = os.path.join(self.base, name)
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        return self.run(["nix-store", "--add", file]).stdout.strip()

    def generate_key(self, name):
        """Returns (secret key file, public key text)."""
        secret = os.path.join(self.base, f"{name}.secret")
        public = os.path.join(self.base, f"{name}.public")
        self.run(["nix-store", "--generate-binary-cache-key", name, secret,
                  public])
        with open(public, encoding="ascii") as file:
            return secret, file.read().strip()


class SecondStore(NixCommands):
    """Another store with the same store directory as `first`.

    Its files lie under `base`/nix; it accepts nothing that is not signed by
    one of `public_keys`.
    """

    def __init__(self, base, first, public_keys):
        self.base = base
        self.store_dir = first.store_dir
        self.real_store_dir = os.path.join(base, "nix", "store")
        self.state_dir = os.path.join(base, "nix", "var", "nix")
        self.url = f"local?root={base}"
        os.makedirs(os.path.join(base, "home"), exist_ok=True)
        self.settings = {
            **BASE_SETTINGS,
            "require-sigs": "true",
            "trusted-public-keys": " ".join(public_keys),
        }
        write_nix_conf(os.path.join(base, "etc"), self.settings)
        self.environment = {
            "PATH": PROGRAM_PATH,
            "HOME": os.path.join(base, "home"),
            "XDG_CACHE_HOME": os.path.join(base, "home", "cache"),
            "NIX_STORE_DIR": first.store_dir,
            "NIX_CONF_DIR": os.path.join(base, "etc"),
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_REMOTE": self.url,
        }
        self.initialise()

    def copy_from(self, url, paths, check=True):
        """Nix itself copies the closures here, checking signatures."""
        return self.run(["nix", "copy", "--from", url, *paths], check=check)

    def verify(self, paths):
        """Nix reads every byte again and checks hashes and signatures."""
        return self.run(["nix", "store", "verify", "--recursive", *paths])

    def real_file(self, path):
        """Where a store path's files are."""
        return os.path.join(self.real_store_dir, os.path.basename(path))


def remove_tree(directory):
    """rm -rf that also works for read-only directories."""
    if not os.path.isdir(directory):
        return
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", directory], check=False,
                       stderr=subprocess.DEVNULL)
    shutil.rmtree(directory, ignore_errors=True)


# --- Derivations to build --------------------------------------------------

def derivation(name, script, **attributes):
    """One derivation, as a Nix expression; `script` is for /bin/sh.

    Values of `attributes` are Nix expressions.
    """
    lines = "".join(f" {key} = {value};" for key, value in attributes.items())
    return (f'derivation {{ name = "{name}"; system = builtins.currentSystem;'
            f' builder = "/bin/sh"; args = [ "-c" {nix_string(script)} ];'
            f'{lines} }}')


def nix_string(text):
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace(
        "${", "\\${").replace("\n", "\\n")
    return f'"{quoted}"'


def chain(name, length, salt):
    """`length` derivations, each one referencing the one before it."""
    first = derivation(f"{name}-0", f"echo {name} 0 {salt} > $out")
    step = derivation("@", f"echo {name} @ {salt} $before > $out",
                      before="before").replace("@", "${toString n}").replace(
                          'name = "', f'name = "{name}-')
    return (f"builtins.foldl' (before: n: {step}) ({first}) "
            f"(builtins.genList (n: n + 1) {length - 1})")


def many(name, count, salt, script="echo $name $salt > $out"):
    """`count` derivations without references to each other, as a list."""
    one = (f'derivation {{ name = "{name}-${{toString n}}"; '
           f'system = builtins.currentSystem; builder = "/bin/sh"; '
           f'salt = "{salt}"; args = [ "-c" {nix_string(script)} ]; }}')
    return f"builtins.genList (n: {one}) {count}"


MULTI_OUTPUT = (
    'derivation {{ name = "{name}"; system = builtins.currentSystem; '
    'builder = "/bin/sh"; outputs = [ "out" "dev" "doc" ]; '
    'args = [ "-c" "echo headers {salt} > $dev; echo manual {salt} > $doc; '
    'echo {salt} $dev > $out" ]; }}')


def multi_output(name, salt):
    """One derivation with out (which references dev), dev and doc."""
    return MULTI_OUTPUT.format(name=name, salt=salt)


def all_outputs(expression):
    """A list of every output of the derivation `expression`."""
    return f"(let d = {expression}; in map (o: d.${{o}}) d.outputs)"
