"""Debian machines that boot, as containers of systemd-nspawn.

    setUpModule = containers.require    # skips, where it cannot be done
    one = containers.Container("one", base, {"/etc/x": "text"})
    two = containers.Container("two", base)
    one.boot(); two.boot()
    containers.join({one: "10.7.0.1", two: "10.7.0.2"})
    one.run(["systemctl", "status"]).stdout
    one.end(); two.end()

Each has a real systemd, an own network, and the files of a Debian root that
all share, with its own written on top. The root is made by debootstrap once
and kept in NIXQ_TEST_CACHE, or below build/, or below the directory for
temporary files: it takes a minute. Mounts, processes and networks go with the
test, even if it is killed.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import support

sys.path.insert(0, os.path.join(support.ROOT, "tests", "support"))

import children  # noqa: E402

PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "ip")
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "nix-bin", "nix-setup-systemd",
    # debootstrap does not find what is provided under other names.
    "libdbi-perl",
    "openssh-server", "nginx-light", "python3", "ca-certificates", "sqlite3",
    "iproute2", "curl", "procps", "openssl", "git",
)
USUAL_MIRROR = "http://deb.debian.org/debian"
DEBOOTSTRAP_SECONDS = 1200
COMMAND_SECONDS = 120
BIN = "/opt/nix-queued/bin"


def why_not():
    """Why no container can run here, in one line, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "booting containers takes root on Linux"
    if not suite():
        return "what was built here does not run on Debian"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)}: not installed"
    with tempfile.TemporaryDirectory(prefix="nixq-try-") as base:
        tried = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc",
             "--fork", "sh", "-c", overlay("/usr", base)],
            capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return ("no namespaces or no overlay file system: "
                + tried.stderr.strip())
    return why_no_cgroup()


def why_no_cgroup():
    """The same, of cgroups alone."""
    places = own_cgroups(f"nixq-{os.getpid()}-try")
    if not places:
        return "no cgroup hierarchy that systemd can use is mounted"
    try:
        for place in places:
            os.mkdir(place)
            os.rmdir(place)
    except OSError as error:
        return f"no cgroup can be made: {error}"
    return None


def overlay(lower, base):
    """Shell text that mounts `base`/root: `lower` with changes on top."""
    made = " ".join(f"{base}/{name}" for name in ("upper", "work", "root"))
    return (f"mkdir -p {made} && mount -t overlay overlay {base}/root -o "
            f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work")


def require():
    """For setUpModule: where nothing can be tested, it says so loudly."""
    why = why_not()
    if why:
        print(f"\n*** NOT TESTED: {why} ***\n", flush=True)
        raise unittest.SkipTest(why)


# --- The root --------------------------------------------------------------

def cache_directory():
    named = os.environ.get("NIXQ_TEST_CACHE")
    if named:
        return named
    build = os.path.join(support.ROOT, "build")
    if os.access(build, os.W_OK):
        return os.path.join(build, "test-cache")
    return os.path.join(tempfile.gettempdir(), f"nixq-cache-{os.getuid()}")


def suite():
    """The Debian that the programs under test were built on, or None."""
    with open("/etc/os-release", encoding="utf-8") as file:
        about = dict(line.strip().split("=", 1) for line in file
                     if "=" in line)
    return about.get("VERSION_CODENAME") if about.get("ID") == "debian" else (
        None)


def libraries():
    """The packages of the libraries that the programs under test load."""
    loaded = subprocess.run(
        ["ldd", os.path.join(os.environ["NIXQ_BIN"], "queued")], check=True,
        capture_output=True, text=True).stdout
    files = {os.path.realpath(path)
             for path in re.findall(r"=> (/\S+)", loaded)}
    owned = subprocess.run(["dpkg-query", "--search", *sorted(files)],
                           check=False, capture_output=True, text=True).stdout
    return {line.split(":")[0] for line in owned.splitlines()}


def debian_root():
    """The directory of the root; made if it is not there yet."""
    packages = sorted({*PACKAGES, *libraries()})
    about = hashlib.sha256(" ".join([suite(), *packages]).encode()).hexdigest()
    cache = cache_directory()
    os.makedirs(cache, exist_ok=True)
    root = os.path.join(cache, f"debian-{suite()}-{about[:12]}")
    with open(f"{root}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(root):
            make_root(root, packages)
    return root


def make_root(root, packages):
    started = time.monotonic()
    unfinished = f"{root}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    log = f"{root}.log"
    print(f"making {root}; see {log}", file=sys.stderr, flush=True)
    with open(log, "w", encoding="utf-8") as out:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase",
             f"--include={','.join(packages)}", suite(), unfinished, mirror()],
            stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **apt_proxy()}, check=False,
            timeout=DEBOOTSTRAP_SECONDS)
    if made.returncode != 0:
        with open(log, encoding="utf-8", errors="replace") as file:
            raise AssertionError("debootstrap: " + file.read()[-2000:])
    shutil.rmtree(f"{unfinished}/var/cache/apt/archives")
    # systemd makes a new one for each machine that has an empty one.
    with open(f"{unfinished}/etc/machine-id", "w", encoding="ascii"):
        pass
    os.rename(unfinished, root)
    print(f"made in {time.monotonic() - started:.0f} s", file=sys.stderr)


def mirror():
    """Where this machine gets its own packages from, if that can be told."""
    for place in ["/etc/apt/sources.list",
                  *sorted(glob.glob("/etc/apt/sources.list.d/*.list")),
                  *sorted(glob.glob("/etc/apt/sources.list.d/*.sources"))]:
        if os.path.exists(place):
            with open(place, encoding="utf-8") as file:
                found = re.search(r"^(?:deb|URIs:)\s.*?(https?://\S+/debian)/?"
                                  r"(?:\s|$)", file.read(), re.MULTILINE)
            if found:
                return found.group(1)
    return USUAL_MIRROR


def apt_proxy():
    """debootstrap does not read the configuration of apt."""
    found = subprocess.run(
        ["apt-config", "shell", "proxy", "Acquire::http::Proxy"], text=True,
        capture_output=True, check=False).stdout
    match = re.fullmatch(r"proxy='(.+)'\s*", found)
    return {"http_proxy": match.group(1)} if match else {}


# --- Cgroups ---------------------------------------------------------------

def own_cgroups(name):
    """Directories of a cgroup for one container, below ours: without them two
    containers would take each other's services for their own."""
    mounts = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind == "cgroup2":
                mounts[""] = before.split()[4]
            elif kind == "cgroup" and "name=systemd" in options:
                mounts["name=systemd"] = before.split()[4]
    found = []
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, place = line.strip().split(":", 2)
            if controllers in mounts:
                found.append(os.path.join(mounts[controllers],
                                          place.lstrip("/"), name))
    return found


def remove_cgroup(directory):
    for folder, _, _ in os.walk(directory, topdown=False):
        os.rmdir(folder)


# --- Containers ------------------------------------------------------------

class Failed(AssertionError):
    """A command in a container that should have worked."""


class Container:
    """A machine called `name`; its own files are below `base`/name.

    `files` are {path: text or bytes, or (text, mode)}; `links` are
    {path: where it leads to}.
    """

    def __init__(self, name, base, files=None, links=None):
        self.name = name
        self.base = os.path.join(base, name)
        self.upper = os.path.join(self.base, "upper")
        self.nspawn = None
        self.init = None
        self.cgroups = []
        self.boots = 0
        for path in ("upper", "work", "root"):
            os.makedirs(os.path.join(self.base, path))
        self.put({"/etc/hostname": f"{name}\n", **(files or {})})
        for path, target in (links or {}).items():
            place = self.place(path)
            os.symlink(target, place)

    def place(self, path):
        place = self.upper + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place

    def put(self, files):
        """Only while it is not running."""
        for path, content in files.items():
            text, mode = content if isinstance(content, tuple) else (
                content, 0o644)
            data = text.encode() if isinstance(text, str) else text
            with open(self.place(path), "wb") as out:
                out.write(data)
            os.chmod(self.place(path), mode)

    # --- Power -------------------------------------------------------------

    def boot(self):
        root = debian_root()
        mine = f"nixq-{os.getpid()}-{self.name}"
        keep_unit = []
        if not os.path.isdir("/run/systemd/system"):
            # Nobody else makes a scope for it.
            keep_unit = ["--keep-unit"]
            self.cgroups = own_cgroups(mine)
        into = "".join(f"mkdir -p {place} && echo $$ > {place}/cgroup.procs\n"
                       for place in self.cgroups)
        self.boots += 1
        self.nspawn = children.Child(
            # Its processes are gone when the first of them is, and the mounts.
            ["unshare", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-ec",
             into + overlay(root, self.base) + '\nexec "$@"', "sh",
             "systemd-nspawn", "--quiet", "--boot", "--register=no", *keep_unit,
             "--link-journal=no", "--private-network", "--console=pipe",
             "--resolv-conf=off", "--timezone=off", f"--machine={mine}",
             f"--directory={self.base}/root",
             f"--bind-ro={os.environ['NIXQ_BIN']}:{BIN}"],
            {"PATH": os.environ["PATH"]},
            os.path.join(self.base, f"boot-{self.boots}.log"))
        self.init = children.wait_until(self.find_init, 60,
                                        f"{self.name} to start", self.log)
        children.wait_until(self.is_up, 90, f"{self.name} to boot",
                            lambda: self.log() + self.what_failed())

    def find_init(self):
        """The process id of its systemd."""
        if not self.nspawn.running():
            raise AssertionError(f"{self.name} does not boot\n{self.log()}")
        for pid in children.descendants(self.nspawn.pid):
            try:
                with open(f"/proc/{pid}/status", encoding="ascii") as file:
                    about = file.read()
                # Here, beside nspawn, and in the container.
                if re.search(r"^NSpid:(\s\d+){2,}\s1$", about, re.M) and (
                        os.path.exists(f"/proc/{pid}/root/run/systemd/"
                                       "private")):
                    return pid
            except OSError:
                continue
        return None

    def is_up(self):
        said = self.run(["systemctl", "is-system-running"], check=False)
        return said.stdout.strip() in ("running", "degraded")

    def what_failed(self):
        return self.run(["sh", "-c", "systemctl --failed; systemctl list-jobs;"
                         " journalctl -p warning --no-pager | tail -40"],
                        check=False).stdout

    def log(self):
        return self.nspawn.log_tail() if self.nspawn else ""

    def cut_power(self):
        """Everything in it is gone at once; the disk stays."""
        if not self.nspawn:
            return
        self.nspawn.end()
        self.nspawn = self.init = None
        for place in self.cgroups:
            if os.path.isdir(place):
                children.wait_until(lambda p=place: not populated(p), 30,
                                    f"{place} to empty")
                remove_cgroup(place)
        self.cgroups = []

    def end(self):
        self.cut_power()
        shutil.rmtree(self.base, ignore_errors=True)

    # --- Commands ----------------------------------------------------------

    def run(self, argv, user=None, check=True, stdin=None):
        """As root, or logged in as `user`."""
        if user:
            argv = ["runuser", "-u", user, "--", "env", f"HOME=/home/{user}",
                    *argv]
        result = subprocess.run(
            ["nsenter", f"--target={self.init}", "--mount", "--uts", "--ipc",
             "--net", "--pid", "--root", "--wd", "--", *map(str, argv)],
            env={"PATH": f"{BIN}:/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8",
                 "HOME": "/root", "SYSTEMD_COLORS": "0", "PAGER": "cat"},
            capture_output=True, text=True, errors="replace",
            timeout=COMMAND_SECONDS, check=False,
            **({"stdin": subprocess.DEVNULL} if stdin is None
               else {"input": stdin}))
        if check and result.returncode != 0:
            raise Failed(f"{self.name}: {' '.join(map(str, argv))}: exit code "
                         f"{result.returncode}\n{result.stdout}"
                         f"{result.stderr}")
        return result

    def shell(self, script, **options):
        return self.run(["sh", "-euc", script], **options)

    def text(self, argv, **options):
        """What a command prints, without the last newline."""
        return self.run(argv, **options).stdout.rstrip("\n")

    def write(self, path, text, mode=0o644):
        """Makes a file, or replaces it."""
        self.run(["install", "-D", f"--mode={mode:o}", "/dev/stdin", path],
                 stdin=text)

    def unit(self, name, *properties):
        """{property: value} of a unit."""
        lines = self.text(["systemctl", "show", name,
                           *(f"--property={p}" for p in properties)])
        return dict(line.split("=", 1) for line in lines.splitlines())

    def journal(self, unit):
        return self.text(["journalctl", "--no-pager", "-o", "cat", "-u", unit])


def populated(cgroup):
    """Whether processes are left in a cgroup or below it."""
    for folder, _, _ in os.walk(cgroup):
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                if file.read().strip():
                    return True
        except OSError:
            continue
    return False


def join(addresses):
    """A cable between two machines that run: {container: IPv4 address}."""
    for machine in addresses:
        # The end of a cable to a machine that is gone may still hang there.
        machine.run(["ip", "link", "delete", "eth0"], check=False)
    first, second = addresses
    ip = ["ip", "link", "add", "eth0", "netns", str(first.init), "type", "veth",
          "peer", "name", "eth0", "netns", str(second.init)]
    subprocess.run(ip, check=True, capture_output=True)
    for machine, address in addresses.items():
        machine.shell(f"ip address add {address}/24 dev eth0; "
                      "ip link set eth0 up")
