#include "storage/nix/derivation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "storage/base/io.h"
#include "storage/base/text.h"
#include "tests/support/private_nix.h"

namespace nixq {
namespace {

constexpr char kOut[] =
    "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12";
constexpr char kDev[] =
    "/nix/store/zyxwvsrqpnmlkjihgfdcba9876543210-hello-2.12-dev";

StoreDir NixStore() { return *StoreDir::Parse("/nix/store"); }

absl::StatusOr<DerivationSummary> Parse(std::string_view text) {
  return ParseDerivation(NixStore(), text);
}

std::string Output(const std::string& name, const std::string& path) {
  return "(\"" + name + "\",\"" + path + "\",\"\",\"\")";
}

// A derivation with these outputs and nothing strange in it.
std::string WithOutputs(const std::string& outputs) {
  return "Derive([" + outputs +
         "],[(\"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv\",[\"out\"])]"
         ",[\"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-builder.sh\"],"
         "\"x86_64-linux\",\"/bin/sh\",[\"-c\",\"true\"],[(\"a\",\"b\")])";
}

TEST(DerivationTest, GivesOutputsAndSystem) {
  const auto summary =
      Parse(WithOutputs(Output("dev", kDev) + "," + Output("out", kOut)));
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->outputs.size(), 2u);
  EXPECT_EQ(summary->outputs[0].name, "dev");
  EXPECT_EQ(NixStore().Print(*summary->outputs[0].path), kDev);
  EXPECT_EQ(summary->outputs[1].name, "out");
  EXPECT_EQ(NixStore().Print(*summary->outputs[1].path), kOut);
  EXPECT_EQ(summary->system, "x86_64-linux");
  EXPECT_TRUE(summary->OutputsAreStatic());
}

TEST(DerivationTest, OutputsMayBeUnknown) {
  const auto floating = Parse(
      "Derive([(\"out\",\"\",\"r:sha256\",\"\")],[],[],\"builtin\",\"b\",[],"
      "[])");
  ASSERT_TRUE(floating.ok()) << floating.status();
  EXPECT_EQ(floating->outputs[0].path, std::nullopt);
  EXPECT_FALSE(floating->OutputsAreStatic());
  const auto partly =
      Parse(WithOutputs(Output("out", kOut) + "," + Output("dev", "")));
  ASSERT_TRUE(partly.ok()) << partly.status();
  EXPECT_FALSE(partly->OutputsAreStatic());
  const auto fixed = Parse("Derive([(\"out\",\"" + std::string(kOut) +
                           "\",\"sha256\",\"00ff\")],[],[],\"builtin\",\"");
  ASSERT_TRUE(fixed.ok()) << fixed.status();
  EXPECT_TRUE(fixed->OutputsAreStatic());
}

TEST(DerivationTest, ReadsTheDynamicForm) {
  const auto summary = Parse(
      "DrvWithVersion(\"xp-dyn-drv\",[" + Output("out", kOut) +
      "],[(\"/nix/store/x.drv\",([\"out\"],[(\"out\",([\"a\"],[]))]))],[],"
      "\"aarch64-linux\",\"/bin/sh\",[],[])");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->system, "aarch64-linux");
}

TEST(DerivationTest, EscapesAreUndone) {
  const auto summary = Parse(
      "Derive([" + Output("out", kOut) +
      "],[],[\"a\\\"]\\\\\",\"\\\\\\\"[(\"],\"s\\n\\t\\r\\\"\\\\\\x\",\"b\"");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->system, "s\n\t\r\"\\x");
}

TEST(DerivationTest, WhatFollowsThePlatformIsNotLookedAt) {
  const std::string outputs = "Derive([" + Output("out", kOut) + "],[],[],";
  EXPECT_TRUE(Parse(outputs + "\"s\",").ok());
  EXPECT_TRUE(Parse(outputs + "\"s\",\xff\xfe anything").ok());
}

TEST(DerivationTest, SaysWhereItStopsBeingOne) {
  struct Row {
    std::string text;
    std::string message;
  };
  const std::string out = Output("out", kOut);
  const std::string twice = out + out;
  const std::string until_lists = "Derive([" + out + "],";
  const std::string at = std::to_string(until_lists.size());
  for (const Row& row : {
           Row{"", "byte 0: expected 'Derive('"},
           Row{"derive(", "byte 0"},
           Row{"Derive", "byte 0"},
           Row{" Derive([", "byte 0"},
           Row{"DrvWithVersion(\"2\",[", "byte 0"},
           Row{"Derive(", "byte 7: expected '['"},
           Row{"Derive([],[],[],\"s\",", "byte 8: expected '('"},
           Row{"Derive([(out", "byte 9: expected '\"'"},
           Row{"Derive([(\"out", "byte 9: a string without an end"},
           Row{"Derive([(\"out\\\"", "byte 9: a string without an end"},
           Row{"Derive([(\"\",\"\",\"\",\"\")]", "byte 9: not the name"},
           Row{"Derive([(\"a\\nb\",\"\",\"\",\"\")]", "byte 9: not the name"},
           Row{"Derive([(\"" + std::string(212, 'x') + "\",", "byte 9"},
           Row{"Derive([(\"out\" ,", "byte 14: expected ','"},
           Row{"Derive([(\"out\",\"/etc/passwd\",", "byte 15"},
           Row{"Derive([(\"out\",\"" + std::string(kOut) + "/bin\",",
               "byte 15"},
           Row{"Derive([(\"out\",\"relative\",", "byte 15"},
           Row{"Derive([(\"out\",\"\",\"\")]", "expected ','"},
           Row{"Derive([(\"out\",\"\",\"\",\"\",\"\")]", "expected ')'"},
           Row{"Derive([" + twice + "],", "expected '],'"},
           Row{"Derive([" + out + ",],", "expected '('"},
           Row{until_lists, "byte " + at + ": expected '['"},
           Row{until_lists + "()", "byte " + at + ": expected '['"},
           Row{until_lists + "[", "byte " + at + ": a list without an end"},
           Row{until_lists + "[(],", "expected a list, a tuple or a string"},
           Row{until_lists + "[)", "expected a list, a tuple or a string"},
           Row{until_lists + "[x]", "expected a list, a tuple or a string"},
           Row{until_lists + "[\"]", "a string without an end"},
           Row{until_lists + "[]]", "expected ','"},
           Row{until_lists + "[],[],s", "expected '\"'"},
           Row{until_lists + "[],[],\"s\"", "expected ','"},
           Row{until_lists + std::string(300, '['), "nested too deeply"},
           Row{until_lists + std::string(1 << 20, '['), "nested too deeply"},
           Row{std::string(kMaxDerivationBytes + 1, 'D'), "longer than"},
       }) {
    const auto summary = Parse(row.text);
    EXPECT_EQ(summary.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(summary.status().message()).find(row.message),
              std::string::npos)
        << row.text.substr(0, 200) << "\n"
        << summary.status();
  }
}

TEST(DerivationTest, EveryTruncationBeforeThePlatformIsRefused) {
  const std::string text =
      WithOutputs(Output("dev", kDev) + "," + Output("out", kOut));
  const size_t enough = text.find("\"/bin/sh\"");
  for (size_t length = 0; length <= text.size(); ++length) {
    EXPECT_EQ(Parse(text.substr(0, length)).ok(), length >= enough) << length;
  }
}

TEST(DerivationTest, LongStringsOfBackslashesTakeLinearTime) {
  std::string text = "Derive([" + Output("out", kOut) + "],[\"";
  for (int i = 0; i < 4000000; ++i) text += "\\\\\\\"";
  // A quadratic parser would not come back from 16 MB of escapes.
  EXPECT_TRUE(Parse(text + "\"],[],\"s\",").ok());
}

// Against the Nix that is installed.
class DerivationGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    auto nix = PrivateNix::Create();
    ASSERT_TRUE(nix.ok()) << nix.status();
    nix_ = *std::move(nix);
  }

  // What our parser and Nix say about an expression's derivation.
  void Check(const std::string& expression, bool is_static) {
    SCOPED_TRACE(expression);
    const auto derivation = nix_->Instantiate(expression);
    ASSERT_TRUE(derivation.ok()) << derivation.status();
    const std::string file = nix_->Print(*derivation);
    const auto text = ReadFile(file, kMaxDerivationBytes);
    ASSERT_TRUE(text.ok()) << text.status();
    const auto summary = ParseDerivation(nix_->store_dir(), *text);
    ASSERT_TRUE(summary.ok()) << summary.status() << "\n" << *text;
    EXPECT_EQ(summary->OutputsAreStatic(), is_static);
    const auto system =
        nix_->Run({"nix-store", "--query", "--binding", "system", file});
    EXPECT_EQ(summary->system, Trim(*system));
    const auto names =
        nix_->Run({"nix-store", "--query", "--binding", "outputs", file});
    if (names.ok()) {
      std::vector<std::string> expected = Split(Trim(*names), ' ');
      std::sort(expected.begin(), expected.end());
      std::vector<std::string> found;
      for (const auto& output : summary->outputs) found.push_back(output.name);
      EXPECT_EQ(found, expected);
    }
    if (!is_static) return;
    std::vector<std::string> paths;
    for (const auto& output : summary->outputs) {
      paths.push_back(nix_->Print(*output.path));
    }
    const auto outputs = nix_->Run({"nix-store", "--query", "--outputs", file});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    std::vector<std::string> expected = Split(Trim(*outputs), '\n');
    std::sort(expected.begin(), expected.end());
    std::sort(paths.begin(), paths.end());
    EXPECT_EQ(paths, expected);
  }

  std::unique_ptr<PrivateNix> nix_;
};

TEST_F(DerivationGoldenTest, ReadsWhatNixWrites) {
  Check(SimpleExpression("simple"), true);
  Check(MultiOutputExpression("multi"), true);
  Check(ChainExpression("chain", 3), true);
  Check(
      "derivation { name = \"odd\"; system = \"riscv64-linux\"; builder = "
      "\"/bin/sh\"; args = [ \"\\\"],[(\\n\\\\\" ]; outputs = [ \"out\" ]; }",
      true);
  Check(
      "derivation { name = \"fixed\"; system = \"builtin\"; builder = "
      "\"builtin:fetchurl\"; url = \"file:///none\"; outputHashMode = "
      "\"flat\"; outputHashAlgo = \"sha256\"; outputHash = "
      "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"; "
      "}",
      true);
  Check(
      "derivation { name = \"floating\"; system = \"x86_64-linux\"; builder = "
      "\"/bin/sh\"; __contentAddressed = true; outputHashMode = "
      "\"recursive\"; outputHashAlgo = \"sha256\"; outputs = [ \"out\" "
      "\"dev\" ]; }",
      false);
}

}  // namespace
}  // namespace nixq
