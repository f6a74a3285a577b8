"""The files of this project, and C++ text without comments and strings."""

import os
import re

ROOT = os.environ.get("NIXQ_SOURCE", os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
CODE_FOLDERS = ("hook", "queued", "schema", "storage", "tests")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def files(suffixes, folders=None):
    """Names relative to the root, sorted; build trees are left out."""
    found = []
    for folder in folders or [""]:
        for directory, children, names in os.walk(os.path.join(ROOT, folder)):
            children[:] = [child for child in children
                           if not child.startswith(".")
                           and child not in ("build", "__pycache__")]
            found += [os.path.relpath(os.path.join(directory, name), ROOT)
                      for name in names if name.endswith(suffixes)]
    return sorted(found)


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def includes(text):
    """(is_system, name) of each #include."""
    return [(bracket == "<", name)
            for bracket, name in INCLUDE.findall(without_comments(text))]


TOKEN = re.compile(
    r'//[^\n]*'                                   # comment
    r'|/\*.*?\*/'                                 # comment
    r'|R"(?P<mark>[^(\s]{0,16})\(.*?\)(?P=mark)"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'                       # string
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'",      # character, not 1'000
    re.DOTALL)


def without_comments(text):
    """Comments blanked; lines keep their numbers."""
    def blank(match):
        token = match.group(0)
        return token if token[0] not in "/" else re.sub(r"[^\n]", " ", token)
    return TOKEN.sub(blank, text)


def bare(text):
    """Comments and the insides of literals blanked; lines keep numbers."""
    def blank(match):
        token = match.group(0)
        if token[0] == "/":
            return re.sub(r"[^\n]", " ", token)
        return '"' + re.sub(r"[^\n]", " ", token)[1:-1] + '"'
    return TOKEN.sub(blank, text)
