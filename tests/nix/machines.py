"""Puts a rendered configuration onto Debian, where NixOS would put it.

    made = support.render("two-hosts", "client")
    files, links = machines.files(made, {"PLACEHOLDER": "value"})
    containers.Container("client", base, files, links)

Our modules' own units, configuration files, tmpfiles and sshd and nginx texts
are used as they are, but for where programs are. What NixOS itself adds is
said here once more, as far as it matters: nginx that runs as its own user in
its own sandbox, an sshd that looks for keys where NixOS puts them.
"""

import os
import re

import containers
import support

TEXTS = "/etc/texts"
PRETENDED = re.compile(r"/nix/store/0{32}-([\w.+-]+?)/(s?bin)\b")

NIX_CONF = """
sandbox = false
experimental-features = nix-command
"""

# As NixOS has it: everybody may talk to the daemon.
TMPFILES = """\
d /nix/var/nix/daemon-socket 0755 root root -
d /nix/var/nix/gcroots/per-user 1777 root root -
d /nix/var/nix/profiles/per-user 1777 root root -
"""

SSHD_CONFIG = """\
AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
LogLevel VERBOSE
{extra}
"""

NGINX_UNIT = """\
[Unit]
Description=nginx
After=network.target

[Service]
ExecStart=/usr/sbin/nginx -e stderr -c /etc/nginx/nixos.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1s
User={user}
Group={group}
RuntimeDirectory=nginx
CacheDirectory=nginx
LogsDirectory=nginx
UMask=0027
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=true
SystemCallFilter=~@cpu-emulation @debug @keyring @mount @obsolete @privileged
"""

NGINX_TEXT = """\
daemon off;
pid /run/nginx/nginx.pid;
error_log stderr info;
events {{ }}
http {{
  client_body_temp_path /run/nginx/body;
  proxy_temp_path /run/nginx/proxy;
  fastcgi_temp_path /run/nginx/fastcgi;
  uwsgi_temp_path /run/nginx/uwsgi;
  scgi_temp_path /run/nginx/scgi;
  access_log off;
  {http}
  {servers}
}}
"""
SERVER = "server {{\n{listen}server_name {names};\n{inside}}}\n"
ALL_ADDRESSES = [{"addr": "0.0.0.0", "port": 80}, {"addr": "[::]", "port": 80}]

# Debian has no Harmonia.
HARMONIA_UNIT = """\
[Unit]
Description=In the place of Harmonia
After=nix-daemon.socket

[Service]
ExecStart=/usr/bin/python3 /opt/store_server.py {address} {port}
Restart=on-failure
DynamicUser=true
Environment=HOME=/tmp

[Install]
WantedBy=multi-user.target
"""


def files(made, changes=None):
    """({path: text or (text, mode)}, {link: where to}) for a Container.

    `changes` are {text: other text}, made wherever it occurs.
    """
    found = {}
    links = {}
    for part in (units, accounts, nix, ssh, nginx, harmonia, etc):
        part(made, found, links)
    texts = {}

    def localize(text):
        """With what is in this container for what is in NixOS' store."""
        text = PRETENDED.sub(program, text)
        for path in set(support.STORE_PATH.findall(text)):
            here = f"{TEXTS}/{os.path.basename(path)}"
            if here not in texts:
                texts[here] = None
                texts[here] = (localize(made.text_of(path)), 0o755)
            text = text.replace(path, here)
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        return text

    for path, content in found.items():
        text, mode = content if isinstance(content, tuple) else (content, 0o644)
        found[path] = (localize(text), mode)
    return {**found, **texts}, links


def program(match):
    package, folder = match.groups()
    return containers.BIN if package == "nix-queued" else f"/usr/{folder}"


def units(made, found, links):
    for name, text in made.units.items():
        if name.endswith(".service") and "\nExecStart=" not in text:
            # Only adds to a unit of NixOS.
            found[f"/etc/systemd/system/{name}.d/nixos.conf"] = text
            continue
        found[f"/etc/systemd/system/{name}"] = text
        for kind, wanted in re.findall(r"^(Wanted|Required)By=(.*)$", text,
                                       re.MULTILINE):
            directory = "wants" if kind == "Wanted" else "requires"
            for unit in wanted.split():
                links[f"/etc/systemd/system/{unit}.{directory}/{name}"] = (
                    f"/etc/systemd/system/{name}")


def accounts(made, found, _links):
    lines = []
    homes = []
    for name in {*made.groups, "users"}:
        lines.append(f"g {name} -")
    for name, user in made.users.items():
        group = user["group"] or "users"
        normal = user["isNormalUser"]
        home = f"/home/{name}" if normal else user["home"]
        shell = "/bin/bash" if normal or user["useDefaultShell"] else (
            "/usr/sbin/nologin")
        lines.append(f'u {name} -:{group} "{user["description"]}" {home} '
                     f'{shell}')
        lines += [f"m {name} {other}" for other in user["extraGroups"]]
        if normal or user["createHome"]:
            homes.append(f"d {home} 0700 {name} {group} -")
        keys = user["openssh"]["authorizedKeys"]
        if keys["keys"]:
            found[f"/etc/ssh/authorized_keys.d/{name}"] = "".join(
                f"{key}\n" for key in keys["keys"])
    found["/etc/sysusers.d/nixos.conf"] = "\n".join(lines) + "\n"
    found["/etc/tmpfiles.d/nix-daemon.conf"] = TMPFILES
    found["/etc/tmpfiles.d/nixos.conf"] = "\n".join(
        [*homes, *made.tmpfiles]) + "\n"


def nix(made, found, _links):
    found["/etc/nix/nix.conf"] = made.nixConf + NIX_CONF
    if made.buildMachines:
        found["/etc/nix/machines"] = "".join(
            machine_line(one) for one in made.buildMachines)


def machine_line(one):
    """What Nix reads of a machine to build on."""
    def listed(words):
        return ",".join(words) or "-"
    user = f"{one['sshUser']}@" if one["sshUser"] else ""
    return " ".join([
        f"{one['protocol']}://{user}{one['hostName']}",
        listed(one["systems"]), one["sshKey"] or "-", str(one["maxJobs"]),
        str(one["speedFactor"]),
        listed(one["supportedFeatures"] + one["mandatoryFeatures"]),
        listed(one["mandatoryFeatures"]), one["publicHostKey"] or "-"]) + "\n"


def ssh(made, found, links):
    found["/etc/ssh/sshd_config"] = SSHD_CONFIG.format(
        extra=made.openssh["extraConfig"])
    found["/etc/ssh/ssh_config.d/nixos.conf"] = made.sshConfig
    found["/etc/ssh/ssh_known_hosts"] = "".join(
        f"{','.join(host['hostNames'])} {host['publicKey']}\n"
        for host in made.knownHosts.values())
    if not made.openssh["enable"]:
        links["/etc/systemd/system/ssh.service"] = "/dev/null"


def nginx(made, found, links):
    web = made.nginx
    if not web["enable"]:
        links["/etc/systemd/system/nginx.service"] = "/dev/null"
        return
    servers = "".join(
        SERVER.format(
            listen="".join(f"listen {one['addr']}:{one['port']};\n"
                           for one in host["listen"] or ALL_ADDRESSES),
            names=" ".join([host["serverName"], *host["serverAliases"]]),
            inside=host["extraConfig"])
        for host in web["virtualHosts"].values())
    found["/etc/nginx/nixos.conf"] = NGINX_TEXT.format(
        http=web["commonHttpConfig"], servers=servers)
    found["/etc/systemd/system/nginx.service"] = NGINX_UNIT.format(
        user=web["user"], group=web["group"])
    found["/etc/sysusers.d/nginx.conf"] = (
        f'g {web["group"]} -\nu {web["user"]} -:{web["group"]}\n')


def harmonia(made, found, links):
    server = made.harmonia.get("cache", made.harmonia)
    if not server["enable"]:
        return
    address, _, port = server["settings"]["bind"].rpartition(":")
    with open(os.path.join(support.HERE, "store_server.py"),
              encoding="utf-8") as file:
        found["/opt/store_server.py"] = file.read()
    name = "harmonia.service"
    found[f"/etc/systemd/system/{name}"] = HARMONIA_UNIT.format(
        address=address.strip("[]"), port=port)
    links[f"/etc/systemd/system/multi-user.target.wants/{name}"] = (
        f"/etc/systemd/system/{name}")


def etc(made, found, _links):
    for name in made.etc:
        mode = made.etc[name]["mode"]
        found[f"/etc/{name}"] = (
            made.etc_text(name), 0o644 if mode == "symlink" else int(mode, 8))
