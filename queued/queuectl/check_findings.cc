#include "queued/queuectl/check_findings.h"

#include <cstdio>
#include <string_view>
#include <utility>

namespace nixq {
namespace {

std::string_view LevelName(Finding::Level level) {
  switch (level) {
    case Finding::Level::kGood:
      return "ok";
    case Finding::Level::kWarning:
      return "warning";
    case Finding::Level::kBad:
      return "failed";
  }
  return "";
}

}  // namespace

Finding Good(std::string what, std::string text) {
  return {std::move(what), Finding::Level::kGood, std::move(text), ""};
}

Finding Warn(std::string what, std::string text, std::string hint) {
  return {std::move(what), Finding::Level::kWarning, std::move(text),
          std::move(hint)};
}

Finding Bad(std::string what, const absl::Status& status, std::string hint) {
  return {std::move(what), Finding::Level::kBad, std::string(status.message()),
          std::move(hint)};
}

void Findings::Add(const Finding& finding) {
  bad_ = bad_ || finding.level == Finding::Level::kBad;
  const std::string level(LevelName(finding.level));
  if (json_) {
    list_.push_back({{"check", finding.what},
                     {"level", level},
                     {"text", finding.text},
                     {"hint", finding.hint}});
    return;
  }
  printf("%-8s %s: %s\n", level.c_str(), finding.what.c_str(),
         finding.text.c_str());
  if (!finding.hint.empty()) printf("         %s\n", finding.hint.c_str());
  fflush(stdout);
}

int Findings::Finish() {
  if (json_) PrintJson(list_);
  return bad_ ? kExitFailed : kExitOk;
}

}  // namespace nixq
