"""The reference of all options, made from the modules.

    tests/nix/options_doc.py            prints it
    tests/nix/options_doc.py --write    writes nixos-module/OPTIONS.md
"""

import json
import os
import re
import sys
import textwrap

import support

FILE = os.path.join(support.MODULES, "OPTIONS.md")
COLUMNS = 99
SHORT = 60
HEAD = """\
# Options

Made from the modules by `python3 tests/nix/options_doc.py --write`. Where a
heading says nothing else, an option is there on NixOS and on nix-darwin.
"""
SYSTEMS = ["NixOS", "nix-darwin"]
# Modules whose options are below a common name.
FAMILIES = ("services.nix-builder.", "services.clubcotton.",
            "kernelcore.system.", "services.")
FIRST = "services.nix-queued"
ALIASES = ("services.clubcotton.", "kernelcore.")


def module_of(name):
    """The module's part of an option's name."""
    for family in FAMILIES:
        if name.startswith(family):
            return family + name[len(family):].split(".")[0]
    raise ValueError(f"{name}: of which module is that?")


def nix(value, indent=""):
    """A value as a Nix expression, in one line if it fits."""
    inner = indent + "  "
    if isinstance(value, dict):
        return enclosed("{}", indent, [f"{key(name)} = {nix(item, inner)};"
                                       for name, item in value.items()])
    if isinstance(value, list):
        return enclosed("[]", indent, [nix(item, inner) for item in value])
    if value is None:
        return "null"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("${", "\\${")
    return json.dumps(value)


def enclosed(brackets, indent, items):
    line = " ".join([brackets[0], *items, brackets[1]])
    if "\n" not in line and len(line) < SHORT:
        return line
    lines = "".join(f"{indent}  {item}\n" for item in items)
    return f"{brackets[0]}\n{lines}{indent}{brackets[1]}"


def key(name):
    return name if re.fullmatch(r"[A-Za-z_][\w'-]*", name) else nix(name)


def expression(shown):
    return shown["text"] if "text" in shown else nix(shown["value"])


def code(text):
    """Short ones in the line, others as a block."""
    return (f"`{text}`" if "\n" not in text
            else f"\n\n```nix\n{text}\n```\n")


def wrapped(text):
    """Paragraphs in lines, with plain code in place of manuals' roles."""
    text = re.sub(r"\{(?:option|file|command|env)\}`", "`", text)
    return "\n\n".join(textwrap.fill(
        " ".join(paragraph.split()), COLUMNS, break_long_words=False,
        break_on_hyphens=False)
        for paragraph in text.strip().split("\n\n"))


def default(option):
    shown = {system: None if value is None else expression(value)
             for system, value in option["defaults"].items()}
    if all(value is None for value in shown.values()):
        return ""
    if len(set(shown.values())) == 1:
        return "default: " + code(next(iter(shown.values())))
    return "default: " + ", ".join(f"{code(value)} on {system}"
                                   for system, value in shown.items())


def systems(option):
    found = sorted(option["defaults"])
    return "" if found == SYSTEMS else f" ({', '.join(found)})"


def entry(option):
    facts = [re.sub(r"(?<=the pattern )(.*)", r"`\1`", option["type"]),
             default(option)]
    if option["example"] is not None:
        facts.append("example: " + code(expression(option["example"])))
    text = "; ".join(fact for fact in facts if fact).replace(": \n", ":\n")
    if "```" not in text:
        text = textwrap.fill(text, COLUMNS, break_long_words=False,
                             break_on_hyphens=False)
    return (f"### `{option['name']}`{systems(option)}\n\n"
            f"{wrapped(option['description'])}\n\n{text.rstrip()}\n")


def order(module):
    return module != FIRST, module.startswith(ALIASES), module


def document(options):
    modules = {}
    for option in options:
        modules.setdefault(module_of(option["name"]), []).append(option)
    text = HEAD
    for module in sorted(modules, key=order):
        text += f"\n## `{module}`\n"
        for option in sorted(modules[module], key=lambda o: (
                o["name"] != f"{module}.enable", o["name"])):
            text += "\n" + entry(option)
    return text


def made():
    return document(support.nix_value(f"import {support.HERE}/options.nix"))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        with open(FILE, "w", encoding="utf-8") as out:
            out.write(made())
    elif not sys.argv[1:]:
        print(made(), end="")
    else:
        sys.exit(__doc__)
