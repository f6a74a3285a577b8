#include "queued/sender_name.h"

#include <sys/stat.h>

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

using ::testing::MatchesRegex;
using ::testing::StartsWith;

std::string Name(const std::string& host_name, const std::string& id = "id",
                 const std::string& state_dir = "/q") {
  return MakeSenderName({host_name, id}, state_dir);
}

TEST(SenderNameTest, IsTheHostsNameAsFarAsItIsFitForAFile) {
  EXPECT_THAT(Name("laptop"), MatchesRegex("laptop-[0-9a-f]+"));
  EXPECT_THAT(Name("laptop.example.org"), StartsWith("laptop-"));
  EXPECT_THAT(Name("Anna's Mac Book"), StartsWith("AnnasMacBook-"));
  EXPECT_THAT(Name("--x"), StartsWith("x-"));
  for (const char* odd : {"", ".", "..", "-", "../../etc", "\n", "$(id)"}) {
    EXPECT_THAT(Name(odd), MatchesRegex("[A-Za-z0-9][A-Za-z0-9-]*")) << odd;
  }
  EXPECT_EQ(Name("").find("machine-"), 0u);
  EXPECT_LE(Name(std::string(255, 'x')).size(), 64u);
}

TEST(SenderNameTest, DiffersBetweenMachinesAndQueues) {
  EXPECT_EQ(Name("a", "1", "/q"), Name("a", "1", "/q"));
  EXPECT_NE(Name("a", "1", "/q"), Name("a", "2", "/q"));
  EXPECT_NE(Name("a", "1", "/q"), Name("a", "1", "/r"));
  EXPECT_NE(Name("localhost.a", "", "/q"), Name("localhost.b", "", "/q"));
}

TEST(SenderNameTest, IsKeptInTheStateDirectory) {
  TemporaryDirectory directory;
  const std::string made = LoadSenderName(directory.path());
  EXPECT_EQ(made, MakeSenderName(ThisMachine(), directory.path()));
  std::string kept;
  std::ifstream(directory / "sender-name") >> kept;
  EXPECT_EQ(kept, made);
  // As after a change of the host name.
  std::ofstream(directory / "sender-name") << "old-name-1\n";
  EXPECT_EQ(LoadSenderName(directory.path()), "old-name-1");
}

TEST(SenderNameTest, WhatIsNoNameIsNotTaken) {
  TemporaryDirectory directory;
  for (const char* bad : {"", "..", "a/b", "-x", ".x", "a b", "a\nb"}) {
    std::ofstream(directory / "sender-name") << bad;
    EXPECT_EQ(LoadSenderName(directory.path()),
              MakeSenderName(ThisMachine(), directory.path()))
        << bad;
  }
}

TEST(SenderNameTest, AStateDirectoryThatIsNotThereIsNoObstacle) {
  EXPECT_EQ(LoadSenderName("/nonexistent/q"),
            MakeSenderName(ThisMachine(), "/nonexistent/q"));
}

}  // namespace
}  // namespace nixq
