"""A real sshd on loopback in front of a second store.

Whoever logs in speaks to the second store's own Nix daemon, which trusts
nobody: what arrives must be signed by a key that the store knows.
"""

import getpass
import os
import subprocess

import children
import nginx
import private_nix

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {base}/host_key
AuthorizedKeysFile {base}/authorized_keys
PidFile {base}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
LogLevel VERBOSE
MaxStartups 100
SetEnv {environment}
"""


def generate_ssh_key(file):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test",
                    "-f", file], check=True, stdin=subprocess.DEVNULL)


class SshStore:
    """`store` (a SecondStore) behind sshd, through a daemon of its own."""

    def __init__(self, base, store):
        self.base = base
        self.store = store
        self.user = getpass.getuser()
        self.key_file = os.path.join(base, "client_key")
        self.known_hosts = os.path.join(base, "known_hosts")
        self.roots_dir = os.path.join(store.state_dir, "gcroots", "arm-cache")
        self.socket = os.path.join(base, "nix.sock")
        self.sshd = None
        self.daemon = None
        os.makedirs(base, exist_ok=True)
        generate_ssh_key(os.path.join(base, "host_key"))
        generate_ssh_key(self.key_file)
        with open(self.key_file + ".pub", encoding="ascii") as public, open(
                os.path.join(base, "authorized_keys"), "w",
                encoding="ascii") as authorized:
            authorized.write(public.read())
        self.start_daemon()
        self.port = 0
        for _ in range(10):
            self.port = self.port or nginx.free_port()
            if self.start():
                return
            self.port = 0
        raise AssertionError(f"sshd does not start\n{self.log()}")

    def log(self):
        return self.sshd.log_tail() if self.sshd else ""

    def start_daemon(self):
        configuration = os.path.join(self.base, "etc")
        private_nix.write_nix_conf(configuration, {
            **self.store.settings, "trusted-users": ""})
        self.daemon = children.Child(
            ["nix-daemon", "--daemon"],
            {**self.store.environment, "NIX_CONF_DIR": configuration,
             "NIX_DAEMON_SOCKET_PATH": self.socket},
            os.path.join(self.base, "nix-daemon.log"))
        children.wait_until(lambda: os.path.exists(self.socket), 30,
                            "the receiving Nix daemon's socket",
                            self.daemon.log_tail)

    def start(self):
        """Starts sshd, on the same port as before if there was one."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        environment = {
            "NIX_REMOTE": f"unix://{self.socket}",
            "NIX_STORE_DIR": self.store.store_dir,
            "NIX_CONF_DIR": os.path.join(self.base, "etc"),
            "NIX_USER_CONF_FILES": "/dev/null",
        }
        configuration = os.path.join(self.base, "sshd_config")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(
                port=self.port, base=self.base,
                environment=" ".join(f"{name}={value}" for name, value
                                     in environment.items())))
        with open(os.path.join(self.base, "host_key.pub"),
                  encoding="ascii") as host_key, open(
                      self.known_hosts, "w", encoding="ascii") as known:
            known.write(f"[127.0.0.1]:{self.port} {host_key.read()}")
        self.sshd = children.Child(
            ["/usr/sbin/sshd", "-D", "-e", "-f", configuration],
            {"PATH": private_nix.PROGRAM_PATH},
            os.path.join(self.base, "sshd.log"))
        children.wait_until(
            lambda: not self.sshd.running()
            or "Server listening" in self.sshd.log(), 20, "sshd to listen",
            self.log)
        return self.sshd.running()

    def stop_sshd(self):
        """Ends it and the sessions that it has."""
        if self.sshd:
            sessions = children.descendants(self.sshd.pid)
            self.sshd.end()
            children.kill_all(sessions)
            self.sshd = None

    def stop(self):
        self.stop_sshd()
        if self.daemon:
            workers = children.descendants(self.daemon.pid)
            self.daemon.end()
            children.kill_all(workers)
            self.daemon = None

    def url(self, scheme="ssh-ng"):
        return f"{scheme}://{self.user}@127.0.0.1:{self.port}"

    def ssh_options(self):
        """What a plain `ssh` or NIX_SSHOPTS needs to get in."""
        return ["-F", "none", "-i", self.key_file, "-p", str(self.port),
                "-oUserKnownHostsFile=" + self.known_hosts,
                "-oBatchMode=yes", "-oIdentitiesOnly=yes"]
