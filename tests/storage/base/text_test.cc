#include "storage/base/text.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>

namespace nixq {
namespace {

using Pieces = std::vector<std::string>;

TEST(SplitTest, KeepsEmptyPieces) {
  EXPECT_EQ(Split("a,b", ','), (Pieces{"a", "b"}));
  EXPECT_EQ(Split("", ','), (Pieces{""}));
  EXPECT_EQ(Split(",", ','), (Pieces{"", ""}));
  EXPECT_EQ(Split(",a,,b,", ','), (Pieces{"", "a", "", "b", ""}));
}

TEST(SplitWordsTest, DropsAllWhiteSpace) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(SplitWords(" a\t\nb  c\r"), (Words{"a", "b", "c"}));
  EXPECT_EQ(SplitWords(" \n "), Words{});
  EXPECT_EQ(SplitWords(""), Words{});
  EXPECT_EQ(SplitWords("one"), Words{"one"});
}

TEST(JoinTest, IsTheInverseOfSplit) {
  EXPECT_EQ(Join({"", "a", "", "b"}, ","), ",a,,b");
  EXPECT_EQ(Join({}, ","), "");
  EXPECT_EQ(Join({"a", "b"}, " and "), "a and b");
}

TEST(TrimTest, TakesWhiteSpaceFromBothEnds) {
  EXPECT_EQ(Trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(Trim(" \n"), "");
  EXPECT_EQ(Trim(""), "");
}

TEST(LowerTest, ChangesAsciiLettersOnly) {
  EXPECT_EQ(Lower("Text/HTML; \xc3\x84"), "text/html; \xc3\x84");
  EXPECT_EQ(Lower(""), "");
}

TEST(ParseUintTest, IsStrict) {
  EXPECT_EQ(ParseUint("0"), 0u);
  EXPECT_EQ(ParseUint("007"), 7u);
  EXPECT_EQ(ParseUint("18446744073709551615"),
            std::numeric_limits<uint64_t>::max());
  for (const char* text : {"", " 1", "1 ", "+1", "-1", "1x", "0x1", "1.0",
                           "18446744073709551616", "\xd9\xa1"}) {
    EXPECT_EQ(ParseUint(text), std::nullopt) << text;
  }
}

TEST(PrintableTest, IsFitForATerminal) {
  struct Row {
    std::string_view text;
    std::string_view shown;
  };
  using namespace std::string_view_literals;
  for (const Row& row : {
           Row{"plain text", "plain text"},
           Row{"\x1b[35;1mred\x1b[0m", "red"},
           Row{"\x1b]0;title\arest", "rest"},
           Row{"\x1b]8;;http://x\x1b\\rest", "rest"},
           Row{"\x1bPdevice\x1b\\rest", "rest"},
           Row{"\x1b"
               "crest",
               "rest"},
           Row{"cut\x1b[31", "cut"},
           Row{"cut\x1b", "cut"},
           Row{"a\nb\tc\0d\x7f"sv, "a?b?c?d?"},
           Row{"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
               "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
           Row{"c1 \xc2\x9b", "c1 ??"},  // an 8-bit escape
           Row{"raw \x9b", "raw ?"},     //
           Row{"overlong \xc0\x8a", "overlong ??"},
           Row{"surrogate \xed\xa0\x80", "surrogate ???"},
           Row{"beyond \xf4\x90\x80\x80", "beyond ????"},
           Row{"cut \xe2\x82", "cut ??"},
       }) {
    EXPECT_EQ(Printable(row.text), row.shown);
  }
}

TEST(PrintableTest, CutsBetweenCharacters) {
  EXPECT_EQ(Printable("abcdef", 3), "abc");
  EXPECT_EQ(Printable("ab\xc3\xa9", 3), "ab");
  EXPECT_EQ(Printable("ab\xc3\xa9", 4), "ab\xc3\xa9");
  EXPECT_EQ(Printable("abc", 0), "");
  EXPECT_EQ(Printable(std::string(10000, 'x')).size(), 4096u);
}

TEST(GlobMatchTest, MatchesTheWholeText) {
  struct Row {
    std::string_view pattern;
    std::string_view text;
    bool matches;
  };
  for (const Row& row : {
           Row{"*", "", true},
           Row{"", "", true},
           Row{"", "a", false},
           Row{"hello", "hello", true},
           Row{"hello", "hello-2", false},
           Row{"hello*", "hello-2", true},
           Row{"*-dev", "gcc-dev", true},
           Row{"*-dev", "gcc-dev2", false},
           Row{"a*b*c", "a-b-b-c", true},
           Row{"a*b*c", "a-c-b", false},
           Row{"**", "anything", true},
           Row{"?", "a", true},
           Row{"?", "", false},
           Row{"a?c", "abc", true},
           Row{"[a-c]x", "bx", true},
           Row{"[a-c]x", "dx", false},
           Row{"[!a-c]x", "dx", true},
           Row{"[^a-c]x", "bx", false},
           Row{"[]]", "]", true},
           Row{"[a-]", "-", true},
           Row{"[abc", "[abc", true},  // never ends: an ordinary '['
           Row{"[", "[", true},
           Row{"linux-[0-9]*", "linux-6.1", true},
           Row{"*[0-9]", "abc1", true},
           Row{"\xff*",
               "\xff"
               "a",
               true},
       }) {
    EXPECT_EQ(GlobMatch(row.pattern, row.text), row.matches)
        << row.pattern << " on " << row.text;
  }
}

TEST(GlobMatchTest, ManyStarsStayCheap) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  // Exponential backtracking would not come back from this.
  EXPECT_FALSE(GlobMatch(pattern + "b", std::string(2000, 'a')));
}

TEST(Base64Test, FollowsTheStandardsVectors) {
  struct Row {
    std::string_view bytes;
    std::string_view text;
  };
  for (const Row& row :
       {Row{"", ""}, Row{"f", "Zg=="}, Row{"fo", "Zm8="}, Row{"foo", "Zm9v"},
        Row{"foob", "Zm9vYg=="}, Row{"fooba", "Zm9vYmE="},
        Row{"foobar", "Zm9vYmFy"}, Row{"\xfb\xff\xfe", "+//+"}}) {
    EXPECT_EQ(Base64Encode(row.bytes), row.text);
    EXPECT_EQ(Base64Decode(row.text), row.bytes);
  }
}

TEST(Base64Test, DecodingIsStrict) {
  for (const char* text : {"Zg", "Zg=", "Zg===", "Z", "=",
                           "====", "Zh==", "Zm9=", "Zm8=Zm8=", "Zm 9", "Zm9v\n",
                           "Zm-_", "Z===", "=Zg="}) {
    EXPECT_EQ(Base64Decode(text), std::nullopt) << text;
  }
}

TEST(Base64Test, RandomBytesComeBack) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 500; ++i) {
    std::string bytes(random() % 70, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_EQ(Base64Decode(Base64Encode(bytes)), bytes);
  }
}

TEST(HumanBytesTest, ShowsThreeDigits) {
  struct Row {
    uint64_t bytes;
    std::string_view shown;
  };
  for (const Row& row : {
           Row{0, "0 B"},
           Row{17, "17 B"},
           Row{1023, "1023 B"},
           Row{1024, "1.0 KiB"},
           Row{1536, "1.5 KiB"},
           Row{812 * 1024ull, "812 KiB"},
           Row{1024 * 1024 - 1, "1.0 MiB"},
           Row{3 * (1ull << 29), "1.5 GiB"},
           Row{std::numeric_limits<uint64_t>::max(), "16.0 EiB"},
       }) {
    EXPECT_EQ(HumanBytes(row.bytes), row.shown);
  }
}

}  // namespace
}  // namespace nixq
