"""The programs under test: the daemon `queued`, `queuectl` and the hook."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import children
import private_nix

BIN = os.environ.get("NIXQ_BIN", "")
SOURCE = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
HOOK = os.path.join(BIN, "queued-hook")


def toml(value):
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(str(value))


def toml_document(tables):
    """{"": {...}, "roots": {...}, "target": [{...}, ...]} as a document."""
    parts = []
    for name, content in tables.items():
        for table in content if isinstance(content, list) else [content]:
            if name:
                brackets = "[[{}]]" if isinstance(content, list) else "[{}]"
                parts.append(brackets.format(name))
            parts += [f"{key} = {toml(value)}"
                      for key, value in table.items()]
    return "\n".join(parts) + "\n"


class Queued:
    """The daemon for one PrivateNix, with its configuration and state.

    `targets` are [[target]] tables; `tables` adds or overrides others. The
    daemon is not started by the constructor.
    """

    def __init__(self, base, nix, targets, tables=None, key_files=()):
        self.base = base
        self.nix = nix
        self.state_dir = os.path.join(base, "state")
        self.config_file = os.path.join(base, "queued.toml")
        self.log_file = os.path.join(base, "queued.log")
        self.notify_file = os.path.join(base, "notify.sock")
        os.makedirs(self.state_dir, exist_ok=True)
        self.tables = {
            "": {"state-dir": self.state_dir, "log-level": "debug"},
            "nix": {"store-dir": nix.store_dir, "state-dir": nix.state_dir,
                    "daemon-socket": nix.socket},
            "roots": {"directory": nix.roots_dir},
            # The shortest that is still a schedule: tests wait for retries.
            "retry": {"min-delay": "50ms", "max-delay": "400ms"},
        }
        if key_files:
            self.tables["signing"] = {"key-files": list(key_files)}
        for name, table in (tables or {}).items():
            self.tables.setdefault(name, {}).update(table)
        self.tables["target"] = targets
        self.write_config()
        self.environment = {
            "PATH": private_nix.PROGRAM_PATH,
            "HOME": os.path.join(nix.base, "home"),
            "NIX_CONF_DIR": nix.conf_dir,
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_QUEUED_STATE_DIR": self.state_dir,
        }
        self.process = None
        self.notify = None
        self.listener = None
        self.notices = []

    def write_config(self, text=None):
        with open(self.config_file, "w", encoding="utf-8") as file:
            file.write(toml_document(self.tables) if text is None else text)

    # --- The daemon --------------------------------------------------------

    def start(self, wait=True, pass_fds=(), wrapper=(), listen=True,
              **variables):
        """Starts and, unless told otherwise, waits for READY=1.

        Without `listen`, nobody takes what the daemon tells systemd.
        """
        self.stop_listening()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.notify_file)
        self.notices = []
        if listen:
            self.listener = threading.Thread(
                target=self.listen, args=(self.notify, self.notices),
                daemon=True)
            self.listener.start()
        self.process = children.Child(
            [*wrapper, os.path.join(BIN, "queued"), "--config",
             self.config_file],
            {**self.environment, "NOTIFY_SOCKET": self.notify_file,
             **variables}, self.log_file, pass_fds)
        if wait:
            children.wait_until(
                lambda: "READY=1" in self.read_notices()
                or not self.process.running(), 30, "READY=1",
                self.process.log_tail)
            if not self.process.running():
                raise AssertionError("queued did not start\n"
                                     + self.process.log_tail())

    @staticmethod
    def listen(notify, notices):
        """In a thread: takes every notice until an empty datagram comes."""
        while True:
            lines = notify.recv(4096).decode().splitlines()
            if not lines:
                return
            notices += lines

    def stop_listening(self):
        if self.listener:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self.notify_file)
            self.listener.join()
            self.listener = None
        if self.notify:
            self.notify.close()
            self.notify = None
            os.unlink(self.notify_file)

    def read_notices(self):
        """All lines that sd_notify has brought so far."""
        return list(self.notices)

    def running(self):
        return self.process is not None and self.process.running()

    def condition(self):
        """For failures: how the daemon is."""
        if self.process is None:
            return "queued was not started"
        code = self.process.process.poll()
        return ("queued is running" if code is None
                else f"queued has ended: {code}") + "; its log:"

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """SIGTERM; returns (exit code, seconds that it took)."""
        started = time.monotonic()
        code = self.process.stop(30)
        return code, time.monotonic() - started

    def kill(self):
        """SIGKILL, as a crash; its children die with it."""
        self.process.kill()

    def reload(self):
        self.process.signal(signal.SIGHUP)

    def log(self):
        try:
            with open(self.log_file, encoding="utf-8",
                      errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def end(self):
        """For cleaning up."""
        if self.process:
            self.process.end()
            self.process = None
        self.stop_listening()

    # --- The hook ----------------------------------------------------------

    def hook_environment(self):
        """What the Nix daemon's environment adds for the hook."""
        return {"NIX_QUEUED_STATE_DIR": self.state_dir,
                "NIX_QUEUED_ROOTS_DIR": self.nix.roots_dir}

    def run_hook(self, paths, drv_path="", **variables):
        return subprocess.run(
            [HOOK], env={**self.nix.environment, **self.hook_environment(),
                         "OUT_PATHS": " ".join(paths), "DRV_PATH": drv_path,
                         **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60 * children.SLOWNESS, check=False)

    # --- queuectl ----------------------------------------------------------

    def ctl(self, *arguments, code=0, limit=120, wrapper=(), **variables):
        """Runs queuectl, expects exit code `code` (None: any)."""
        result = subprocess.run(
            [*wrapper, os.path.join(BIN, "queuectl"), "--config",
             self.config_file, *map(str, arguments)],
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=limit * children.SLOWNESS, check=False)
        if code is not None and result.returncode != code:
            raise AssertionError(
                f"queuectl {' '.join(map(str, arguments))}: exit code "
                f"{result.returncode}, not {code}\n{result.stdout}"
                f"{result.stderr}\n--- {self.condition()}\n"
                + self.log_tail())
        return result

    def ctl_json(self, *arguments, code=0):
        return json.loads(self.ctl(*arguments, "--json", code=code).stdout)

    def wait(self, *paths, limit=120, code=0):
        """Until nothing is open any more, as queuectl sees it."""
        return self.ctl("wait", "--timeout", f"{limit * children.SLOWNESS}s",
                        *paths, code=code, limit=limit + 30)

    # --- The database, as a person reads it --------------------------------

    def rows(self, sql, *values):
        with sqlite3.connect(f"file:{self.state_dir}/queue.db?mode=ro",
                             uri=True, timeout=30) as database:
            database.row_factory = sqlite3.Row
            result = [dict(row) for row in database.execute(sql, values)]
        database.close()
        return result

    def value(self, sql, *values):
        row = self.rows(sql, *values)[0]
        return next(iter(row.values()))

    def jobs(self, where="1"):
        return self.rows(
            "SELECT paths.path, targets.name AS target, jobs.* FROM jobs "
            "JOIN paths ON paths.id = jobs.path_id "
            "JOIN targets ON targets.id = jobs.target_id "
            f"WHERE {where} ORDER BY jobs.id")

    def wait_for_rows(self, sql, what, limit=60):
        """Until the query has a row; a database that is not there has none."""
        def ask():
            try:
                return self.rows(sql)
            except sqlite3.OperationalError:
                return None
        return children.wait_until(ask, limit, what, self.log_tail)
