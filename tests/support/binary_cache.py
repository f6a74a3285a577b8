"""Looks at a binary cache in a directory as a suspicious reader would."""

import hashlib
import lzma
import os
import subprocess

NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"


def nix32(digest):
    """A hash as Nix writes it: base 32, the last bits first."""
    number = int.from_bytes(digest, "little")
    length = (len(digest) * 8 - 1) // 5 + 1
    return "".join(NIX32[(number >> (5 * index)) & 31]
                   for index in reversed(range(length)))


def parse_narinfo(text):
    """A narinfo's fields; `Sig` and `References` are lists."""
    if not text.endswith("\n"):
        raise ValueError("narinfo without its last newline")
    info = {"Sig": [], "References": []}
    for line in text[:-1].split("\n"):
        name, separator, value = line.partition(": ")
        if not separator:
            raise ValueError(f"narinfo line without colon: {line!r}")
        if name == "Sig":
            info["Sig"].append(value)
        elif name == "References":
            info["References"] = value.split()
        elif name in info:
            raise ValueError(f"narinfo field {name} twice")
        else:
            info[name] = value
    return info


def narinfo_key(path):
    """The narinfo's key for a store path or its base name."""
    return os.path.basename(path)[:32] + ".narinfo"


def decompress(data, compression):
    if compression == "none":
        return data
    if compression == "xz":
        return lzma.decompress(data)
    if compression == "zstd":
        return subprocess.run(["zstd", "-d", "-c"], input=data,
                              capture_output=True, check=True).stdout
    raise ValueError(f"compression {compression}")


class BinaryCache:
    """A cache's files under `directory`."""

    def __init__(self, directory):
        self.directory = directory

    def file(self, key):
        return os.path.join(self.directory, key)

    def has(self, path):
        return os.path.exists(self.file(narinfo_key(path)))

    def lacks(self, paths):
        return [path for path in paths if not self.has(path)]

    def narinfo(self, path):
        with open(self.file(narinfo_key(path)), encoding="utf-8") as file:
            return parse_narinfo(file.read())

    def narinfo_keys(self):
        try:
            return sorted(name for name in os.listdir(self.directory)
                          if name.endswith(".narinfo"))
        except FileNotFoundError:
            return []

    def nars(self):
        try:
            return sorted(os.listdir(self.file("nar")))
        except FileNotFoundError:
            return []

    def problems_of(self, key):
        """What is wrong with one published narinfo, deeply; [] if nothing."""
        with open(self.file(key), encoding="utf-8") as file:
            try:
                info = parse_narinfo(file.read())
            except ValueError as error:
                return [f"{key}: {error}"]
        problems = []
        for reference in info["References"]:
            if not self.has(reference):
                problems.append(f"{key}: reference {reference} is not there")
        try:
            with open(self.file(info["URL"]), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return problems + [f"{key}: {info['URL']} is not there"]
        if "FileSize" in info and len(data) != int(info["FileSize"]):
            problems.append(f"{key}: FileSize {info['FileSize']}, in truth "
                            f"{len(data)}")
        file_hash = "sha256:" + nix32(hashlib.sha256(data).digest())
        if info.get("FileHash", file_hash) != file_hash:
            problems.append(f"{key}: FileHash {info['FileHash']}, in truth "
                            f"{file_hash}")
        try:
            nar = decompress(data, info["Compression"])
        except (ValueError, lzma.LZMAError,
                subprocess.CalledProcessError) as error:
            return problems + [f"{key}: {info['URL']}: {error}"]
        nar_hash = "sha256:" + nix32(hashlib.sha256(nar).digest())
        if info["NarHash"] != nar_hash or int(info["NarSize"]) != len(nar):
            problems.append(f"{key}: the NAR is {nar_hash}, {len(nar)} bytes, "
                            f"not {info['NarHash']}, {info['NarSize']}")
        return problems

    def problems(self):
        """Everything published that is not whole."""
        return [problem for key in self.narinfo_keys()
                for problem in self.problems_of(key)]
