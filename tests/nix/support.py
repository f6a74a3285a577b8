"""Evaluates configurations that use our modules, and says what came of it.

A case is an attribute of a file in cases/:

    {
      name = {
        module = { services.nix-queued.enable = true; };
        class = "darwin";                 # "nixos" if it is left out
        fails = "part of the message";    # for what must not evaluate
        flatHarmonia = true;              # see stubs/harmonia.nix
      };
    }

All modules of nixos-module/ are imported beside `module`. In a test:

    class Agent(support.Cases):
        file = "agent"                    # all cases of cases/agent.nix

        def test_unit(self):
            made = support.render("agent", "minimal")
            self.assertIn("User=nix-queued", made.units["nix-queued.service"])
            made.text_of("/nix/store/...-queued.toml")  # what a module wrote

`Cases` evaluates every case, and wants those with `fails` to fail with that
message, as an error or as a failed assertion, and all others to succeed. It
does so with the pocket module system, with the real lib if NIXPKGS_LIB names
one (a checkout of nixpkgs or nixpkgs.lib, or its lib folder), and with the
real nix-darwin if NIX_DARWIN names that as well. Messages are those of nixpkgs
25.05 and later; the modules work from 23.11 on. `nix_value` evaluates any
expression, such as a call of our lib.

Everything is evaluated by nix-instantiate in a store of its own, without a
daemon; texts that modules write are real files there.
"""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(HERE)))
MODULES = os.path.join(ROOT, "nixos-module")
LIMIT_SECONDS = 120
STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+")


class EvaluationFailed(Exception):
    """Nix refused; the message is what it printed."""


# --- Nix -------------------------------------------------------------------

@functools.lru_cache(maxsize=None)
def base():
    """The temporary directory of this process, with a store below it."""
    directory = tempfile.mkdtemp(prefix="nixq-eval-")
    atexit.register(remove, directory)
    with open(os.path.join(directory, "nix.conf"), "w",
              encoding="utf-8") as file:
        file.write("build-users-group =\nsubstituters =\n"
                   "experimental-features = nix-command flakes\n")
    return directory


def remove(directory):
    for folder, _, _ in os.walk(directory):
        os.chmod(folder, 0o700)
    shutil.rmtree(directory)


def environment():
    """For Nix commands that shall use the private store."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith("NIX_")}
    return {**kept, "HOME": base(), "NIX_CONF_DIR": base(),
            "NIX_USER_CONF_FILES": "/dev/null",
            "XDG_CACHE_HOME": os.path.join(base(), "cache"),
            "NIX_REMOTE": f"local?root={base()}/store", "LC_ALL": "C"}


def run_nix(argv, check=True, **options):
    result = subprocess.run(argv, env=environment(), text=True,
                            capture_output=True, timeout=LIMIT_SECONDS,
                            stdin=subprocess.DEVNULL, check=False, **options)
    if check and result.returncode != 0:
        raise EvaluationFailed(result.stderr)
    return result


def nix_value(expression):
    """The value of an expression, as JSON has it."""
    return json.loads(run_nix(
        ["nix-instantiate", "--eval", "--strict", "--json",
         "--read-write-mode", "--expr", expression]).stdout)


def real_file(path):
    """Where the file of a store path is that an evaluation wrote."""
    return os.path.join(base(), "store", path.lstrip("/"))


# --- Libraries -------------------------------------------------------------

def nixpkgs_lib():
    """The lib folder that NIXPKGS_LIB names, or None."""
    named = os.environ.get("NIXPKGS_LIB")
    if not named:
        return None
    for folder in (named, os.path.join(named, "lib")):
        if os.path.exists(os.path.join(folder, "modules.nix")):
            return folder
    raise FileNotFoundError(f"NIXPKGS_LIB: there is no lib in {named}")


def surroundings(class_):
    """{name: arguments of eval.nix} that cases of a class are tried in."""
    found = {"pocket": {}}
    lib = nixpkgs_lib()
    if lib:
        found["nixpkgs"] = {"lib": f"import {lib}"}
        darwin = os.environ.get("NIX_DARWIN")
        if darwin and class_ == "darwin":
            found["nix-darwin"] = {**found["nixpkgs"], "nixDarwin": darwin}
    return found


def what_is_missing():
    """One line for the person who runs the tests, or None."""
    missing = [name for name in ("NIXPKGS_LIB", "NIX_DARWIN")
               if not os.environ.get(name)]
    return (f"{' and '.join(missing)} not named: only the pocket module "
            "system was tried" if missing else None)


# --- Cases -----------------------------------------------------------------

class Rendered:
    """What a configuration comes to; attributes as in eval.nix."""

    def __init__(self, data):
        self.__dict__.update(data)
        self.data = data

    def text_of(self, path):
        """The text of a store path, or of the program in it."""
        with open(real_file(STORE_PATH.match(path).group(0)),
                  encoding="utf-8") as file:
            return file.read()

    def etc_text(self, name):
        """The text of a file below /etc."""
        entry = self.etc[name]
        if entry["text"] is not None:
            return entry["text"]
        return self.text_of(entry["source"])


def cases_file(name):
    return os.path.join(HERE, "cases", f"{name}.nix")


@functools.lru_cache(maxsize=None)
def cases(name):
    """{case: {"class": ..., "fails": ... or None}} of cases/<name>.nix."""
    return nix_value(
        "builtins.mapAttrs (_: c: { class = c.class or \"nixos\";"
        f" fails = c.fails or null; }}) (import {cases_file(name)})")


def files():
    """The names of all files in cases/."""
    return sorted(os.path.splitext(name)[0]
                  for name in os.listdir(os.path.join(HERE, "cases")))


def call(name, case, arguments):
    extra = "".join(f" {key} = {value};" for key, value in arguments.items())
    return (f"(import {HERE}/eval.nix (removeAttrs"
            f" (import {cases_file(name)}).{json.dumps(case)} [ \"fails\" ]"
            f" // {{{extra} }})).rendered")


@functools.lru_cache(maxsize=None)
def render(name, case, where="pocket"):
    """Evaluates one case. Raises EvaluationFailed."""
    arguments = surroundings(cases(name)[case]["class"])[where]
    return Rendered(nix_value(call(name, case, arguments)))


PRETENDED = re.compile(
    r"/nix/store/0{32}-([\w.+-]+?)/(s?bin)(?:/([\w.+-]+))?(?=[\s:\"';]|$)",
    re.ASCII | re.MULTILINE)


def on_this_machine(text, ours):
    """`text` with this machine's programs for those that are pretended.

    `ours` is the folder of queued, queuectl and queued-hook.
    """
    def replace(match):
        package, folder, program = match.groups()
        if package == "nix-queued":
            return os.path.join(ours, program) if program else ours
        if not program:
            return f"/usr/{folder}"
        return shutil.which(program) or f"/usr/{folder}/{program}"
    return PRETENDED.sub(replace, text)


class Cases(unittest.TestCase):
    """All cases of a file; a subclass names it."""

    file = None

    @classmethod
    def setUpClass(cls):
        if what_is_missing():
            print(f"\nNOTE: {what_is_missing()}", file=sys.stderr)

    def test_every_case(self):
        if self.file is None:
            return
        self.assertTrue(cases(self.file))
        for case, about in cases(self.file).items():
            for where in surroundings(about["class"]):
                with self.subTest(case, where=where):
                    self.check(case, where, about["fails"])

    def check(self, case, where, fails):
        try:
            failures = render(self.file, case, where).failures
        except EvaluationFailed as error:
            failures = [str(error)]
        if fails is None:
            self.assertEqual([], failures, "\n".join(failures))
        else:
            self.assertTrue(any(fails in one_line(text) for text in failures),
                            f"wanted: {fails}\n" + "\n".join(failures))


def one_line(text):
    """Nix breaks lines where it likes."""
    return re.sub(r"\s+", " ", text)
