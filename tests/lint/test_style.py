"""Sizes, columns, and calls that only their owners make."""

import re
import unittest

import source_tree

MAX_COLUMNS = 80
MAX_HEADER_LINES = 200
MAX_SOURCE_LINES = 600
MAX_FUNCTION_LINES = 70

# What reads the world outside of the narrow interfaces for it, and the files
# that implement those interfaces.
OWNERS_OF_CALLS = {
    r"(?:std::|::)?(?:time|gettimeofday|clock_gettime|localtime|gmtime)\s*\(":
        r"storage/base/clock\.cc",
    r"absl::Now\s*\(": r"storage/base/clock\.cc",
    r"system_clock\b": r"storage/base/clock\.cc",
    r"(?:std::|::)?(?:sleep|usleep|nanosleep)\s*\(": None,
    # SQLite's busy handler, which has to wait a little and has a limit.
    r"\bsleep_(?:for|until)\s*\(": r"storage/queue/sqlite\.cc",
    # `queuectl wait` looks again and again.
    r"absl::SleepFor\s*\(": r"queued/queuectl/\w+\.cc",
    r"(?:std::|::)?(?:rand|srand|random|srandom|drand48|rand_r)\s*\(":
        r"storage/base/clock\.cc",
    r"\b(?:random_device|mt19937)\b": r"storage/base/clock\.cc",
    r"(?:std::|::)?(?:getenv|secure_getenv)\s*\(":
        r"storage/base/process\.cc|(hook|queued)/main\.cc",
    r"\b(?:setenv|putenv|system|popen|gets|strtok|tmpnam)\s*\(": None,
    r"\bthrow\b": None,
}
NOT_A_NAME_BEFORE = r"(?<![\w.>:~])"


def forbidden_calls(name, text):
    """Calls in `name` (not below tests/) that belong elsewhere."""
    found = []
    bare = source_tree.bare(text)
    for call, owner in OWNERS_OF_CALLS.items():
        if owner and re.fullmatch(owner, name):
            continue
        pattern = call if call.startswith(r"\b") else NOT_A_NAME_BEFORE + call
        for match in re.finditer(pattern, bare):
            before = bare[:match.start()].rstrip()
            if re.search(r"\b(int|void|double|long|Time|time_t)$", before):
                continue  # a declaration of something with that name
            line = bare.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: {match.group(0).strip()}...")
    return found


def functions(text):
    """(first line, number of lines) of each function with a body."""
    bare = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda match: re.sub(
        r"[^\n]", " ", match.group(0)), source_tree.bare(text),
                  flags=re.MULTILINE)
    found = []
    stack = []
    start = 0
    for index, character in enumerate(bare):
        outside = all(kind in ("namespace", "type") for kind, _ in stack)
        if character == "{":
            head = bare[start:index]
            stack.append((kind_of_block(head) if outside else "inner",
                          start + len(head) - len(head.lstrip())))
            start = index + 1
        elif character == "}" and stack:
            kind, begin = stack.pop()
            if kind == "function":
                lines = bare.count("\n", begin, index) + 1
                found.append((bare.count("\n", 0, begin) + 1, lines))
            start = index + 1
        elif character == ";" and outside:
            start = index + 1
    return found


def kind_of_block(head):
    if re.search(r'\bnamespace\b|\bextern\s*"', head):
        return "namespace"
    if "(" in head:
        return "function"
    if re.search(r"\b(class|struct|union|enum)\b", head):
        return "type"
    return "inner"


class LintOfTheLint(unittest.TestCase):

    def test_forbidden_calls(self):
        for text in ("x = time(nullptr);", "auto t = ::time(0);",
                     "std::this_thread::sleep_for(a);", "  sleep(1);",
                     'if (getenv("A"))', 'std::getenv("A");', "int r = rand();",
                     "absl::Time t = absl::Now();", "throw 1;",
                     "std::mt19937 engine;", "std::system(s);"):
            with self.subTest(text=text):
                self.assertEqual(1, len(forbidden_calls("queued/x.cc", text)))

    def test_allowed_calls(self):
        for text in ("clock.time();", "// sleep(1)", 's = "rand()";',
                     "retry_time(3);", "x->random();", "Runtime(1);",
                     "std::chrono::steady_clock::now();"):
            with self.subTest(text=text):
                self.assertEqual([], forbidden_calls("queued/x.cc", text))
        self.assertEqual([], forbidden_calls("storage/base/clock.cc",
                                             "return absl::Now();"))

    def test_functions(self):
        long_body = "  x();\n" * 100
        text = ("namespace nixq {\nnamespace {\n\nclass A {\n  void F() {\n"
                "    a();\n  }\n};\n\nint G(int a,\n      int b) {\n"
                + long_body + "}\n\nconst int kTable[] = {\n"
                + "  1,\n" * 100 + "};\n}\n}\n")
        self.assertEqual([(5, 3), (10, 103)], functions(text))


class Tree(unittest.TestCase):

    def check(self, complaints):
        self.assertEqual([], complaints, "\n" + "\n".join(complaints))

    def test_columns_and_whitespace(self):
        complaints = []
        for name in source_tree.files((".h", ".cc", ".py", ".sh", ".sql")):
            text = source_tree.read(name)
            if text and not text.endswith("\n"):
                complaints.append(f"{name}: no newline at its end")
            for number, line in enumerate(text.splitlines(), 1):
                if len(line) > MAX_COLUMNS and "http" not in line:
                    complaints.append(f"{name}:{number}: {len(line)} columns")
                if line != line.rstrip() or "\t" in line:
                    complaints.append(f"{name}:{number}: stray whitespace")
        self.check(complaints)

    def test_sizes_of_files(self):
        complaints = []
        for name in source_tree.files((".h", ".cc", ".py", ".sh")):
            lines = len(source_tree.read(name).splitlines())
            limit = (MAX_HEADER_LINES if name.endswith(".h")
                     else MAX_SOURCE_LINES)
            if lines > limit:
                complaints.append(f"{name}: {lines} lines")
        self.check(complaints)

    def test_sizes_of_functions(self):
        complaints = []
        for name in source_tree.files((".h", ".cc"),
                                      source_tree.CODE_FOLDERS):
            for line, lines in functions(source_tree.read(name)):
                if lines > MAX_FUNCTION_LINES:
                    complaints.append(f"{name}:{line}: {lines} lines")
        self.check(complaints)

    def test_calls(self):
        complaints = []
        for name in source_tree.files((".h", ".cc"),
                                      ("hook", "queued", "storage")):
            complaints += forbidden_calls(name, source_tree.read(name))
        self.check(complaints)


if __name__ == "__main__":
    unittest.main()
