// What the tests of the configuration share.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "queued/config.h"

namespace nixq {

inline constexpr char kOneTarget[] =
    "[[target]]\nurl = \"file:///srv/nix-cache\"\n";

inline Surroundings Root() {
  Surroundings surroundings;
  surroundings.is_root = true;
  surroundings.home = "/root";
  return surroundings;
}

inline Surroundings User() {
  Surroundings surroundings;
  surroundings.home = "/home/ann";
  return surroundings;
}

// A file of the source tree.
inline std::string ReadSource(const std::string& name) {
  std::ifstream file(std::string(NIXQ_SOURCE_DIR) + "/" + name);
  EXPECT_TRUE(file.is_open()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline std::vector<std::string> Texts(
    const std::vector<ConfigProblem>& problems) {
  std::vector<std::string> texts;
  texts.reserve(problems.size());
  for (const ConfigProblem& problem : problems) texts.push_back(problem.text);
  return texts;
}

}  // namespace nixq
