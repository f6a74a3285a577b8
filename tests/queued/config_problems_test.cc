#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <regex>

#include "queued/config.h"
#include "storage/base/text.h"
#include "tests/queued/config_fixture.h"

namespace nixq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// --- What is wrong ---------------------------------------------------------

TEST(ConfigProblems, EachIsReportedWhereItIs) {
  std::vector<std::string> lines =
      Split(ReadSource("tests/queued/config_problems.txt"), '\n');
  std::string text;
  std::vector<std::string> expected;
  int cases = -1;  // the first is the file's head
  int number = 0;
  for (const std::string& line : lines) {
    ++number;
    if (line.starts_with("=> ")) {
      expected.push_back(line.substr(3));
      continue;
    }
    if (line != "----" && number < static_cast<int>(lines.size())) {
      text += line + "\n";
      continue;
    }
    if (++cases > 0) {
      SCOPED_TRACE("config_problems.txt, case that ends in line " +
                   std::to_string(number));
      std::vector<std::string> found =
          Texts(ParseConfig(text, "dir/q.toml", Root()).problems);
      ASSERT_THAT(found, SizeIs(expected.size()));
      ASSERT_FALSE(expected.empty());
      for (size_t i = 0; i < found.size(); ++i) {
        std::string whole = "dir/q.toml:" + expected[i];
        if (expected[i].ends_with(": *")) {
          whole.resize(whole.size() - 2);
          EXPECT_THAT(found[i], StartsWith(whole));
        } else {
          EXPECT_EQ(found[i], whole);
        }
      }
    }
    text.clear();
    expected.clear();
  }
  EXPECT_GE(cases, 100);
}

TEST(ConfigProblems, NeverShowAPassword) {
  for (const char* url :
       {"https://me:hunter2@cache", "ssh://me:hunter2@host",
        "ssh-ng://me:hunter2@host:99999", "local:http://me:hunter2@cache",
        "hunter2@https://cache", "me:hunter2://cache", "hunter2",
        "https://cache?token=hunter2", "http://me:hunter2@[::1"}) {
    ParsedConfig parsed = ParseConfig(
        "[[target]]\nurl = \"" + std::string(url) + "\"\n", "q.toml", Root());
    ASSERT_THAT(parsed.problems, SizeIs(1)) << url;
    EXPECT_THAT(parsed.problems[0].text, Not(HasSubstr("hunter2"))) << url;
    EXPECT_TRUE(parsed.config.targets[0].url.empty()) << url;
  }
}

TEST(ConfigProblems, AreBounded) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "key" + std::to_string(i) + " = 1\n";
  std::vector<std::string> found =
      Texts(ParseConfig(text + kOneTarget, "q.toml", Root()).problems);
  ASSERT_THAT(found, SizeIs(101));
  EXPECT_EQ(found.back(), "q.toml: and 900 more");
}

TEST(ConfigProblems, InTheEnvironment) {
  Surroundings surroundings = Root();
  surroundings.variables = {{"NIX_STATE_DIR", "var/nix"},
                            {"NIX_STORE_DIR", "store"},
                            {"NIX_QUEUED_ROOTS_DIR", "roots"}};
  std::vector<std::string> found =
      Texts(ParseConfig(kOneTarget, "q.toml", surroundings).problems);
  ASSERT_THAT(found, SizeIs(3));
  EXPECT_THAT(found[0], HasSubstr("NIX_STORE_DIR"));
  EXPECT_THAT(found[1], HasSubstr("NIX_STATE_DIR must be an absolute path"));
  EXPECT_THAT(found[2], HasSubstr("NIX_QUEUED_ROOTS_DIR must be an absolute"));
}

TEST(ConfigProblems, DirectoryTooLongForItsSockets) {
  std::string deep = "/" + std::string(94, 'd');
  for (const std::string& line :
       {"state-dir = \"" + deep + "/queue\"\n",
        "nix.daemon-socket = \"" + deep + "/daemon-socket\"\n"}) {
    ParsedConfig parsed = ParseConfig(line + kOneTarget, "q.toml", Root());
    ASSERT_THAT(parsed.problems, SizeIs(1)) << line;
    EXPECT_THAT(parsed.problems[0].text,
                HasSubstr("bytes, to fit into a socket's address"));
  }
}

TEST(ConfigProblems, TooMuchToParse) {
  // And nothing else, as long as it is not known what is in the file.
  EXPECT_THAT(
      Texts(ParseConfig(std::string(2 << 20, '\n'), "q", Root()).problems),
      ElementsAre("q:1:1: the file is longer than 1048576 bytes"));
}

// --- Whatever else it is given ---------------------------------------------

TEST(ConfigFuzz, MutationsNeverCrash) {
  const std::vector<std::string> corpus = {
      ReadSource("tests/queued/config_full.toml"),
      ReadSource("examples/minimal.toml"),
      ReadSource("tests/queued/config_problems.txt")};
  const std::vector<std::string> words = {"[[",
                                          "]]",
                                          "[",
                                          "]",
                                          "{",
                                          "}",
                                          "\"",
                                          "'''",
                                          "\n",
                                          "=",
                                          ".",
                                          "#",
                                          "\\u",
                                          "\xff",
                                          std::string(1, '\0'),
                                          "target",
                                          "url",
                                          "99999999999999999999",
                                          "-1",
                                          "1e999",
                                          "nan",
                                          "1979-05-27T07:32:00Z",
                                          "\"ssh://\"",
                                          "a.b.c = "};
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  auto below = [&](size_t limit) { return random() % limit; };
  const std::regex form("q\\.toml(:\\d+:\\d+: [^\\n]+|: and \\d+ more)");
  for (int i = 0; i < 2000; ++i) {
    std::string text = corpus[below(corpus.size())];
    for (size_t n = below(6) + 1; n > 0; --n) {
      size_t at = below(text.size() + 1);
      switch (below(3)) {
        case 0:
          text.insert(at, words[below(words.size())]);
          break;
        case 1:
          text.erase(at, below(40));
          break;
        default:
          if (at < text.size()) text[at] = static_cast<char>(random());
      }
    }
    for (const std::string& problem :
         Texts(ParseConfig(text, "q.toml", Root()).problems)) {
      ASSERT_TRUE(std::regex_match(problem, form)) << problem;
    }
  }
}

TEST(ConfigFuzz, DepthIsBounded) {
  std::string dots;
  for (int i = 0; i < 2000; ++i) dots += "a.";
  // As deep as the bound on lines lets it be, in every way that there is.
  std::string text = "[" + dots + "a]\n" + dots + "a = [" +
                     std::string(90, '[') + std::string(90, ']') + "]\n";
  EXPECT_THAT(Texts(ParseConfig(text, "q.toml", Root()).problems),
              Not(IsEmpty()));
  text = std::string(4000, '[');
  EXPECT_THAT(Texts(ParseConfig(text, "q.toml", Root()).problems),
              Not(IsEmpty()));
  text = std::string(100000, '[');
  EXPECT_THAT(Texts(ParseConfig(text, "q.toml", Root()).problems)[0],
              HasSubstr("the line is longer than 4096 bytes"));
}

}  // namespace
}  // namespace nixq
