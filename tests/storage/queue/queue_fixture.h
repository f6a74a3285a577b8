// A queue in a directory of its own, with a clock that the test moves.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/queue/inbox.h"
#include "storage/queue/queue.h"
#include "storage/queue/report.h"
#include "storage/queue/sqlite.h"
#include "tests/support/temporary_directory.h"

namespace nixq {

// NOLINTBEGIN(bugprone-macro-parentheses): `lhs` may be a declaration.
// Asserts that a StatusOr holds a value and gives it.
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_IMPL_(NIXQ_CONCAT_(ok_or_, __LINE__), lhs, expr)
#define ASSERT_OK_IMPL_(result, lhs, expr)     \
  auto result = (expr);                        \
  ASSERT_TRUE(result.ok()) << result.status(); \
  lhs = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)
#define ASSERT_OK(expr)                         \
  do {                                          \
    const absl::Status& ok_status_ = (expr);    \
    ASSERT_TRUE(ok_status_.ok()) << ok_status_; \
  } while (false)
#define EXPECT_OK(expr)                         \
  do {                                          \
    const absl::Status& ok_status_ = (expr);    \
    EXPECT_TRUE(ok_status_.ok()) << ok_status_; \
  } while (false)

class FakeClock : public Clock {
 public:
  absl::Time Now() override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }
  void Set(absl::Time now) { now_ = now; }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1795230725);  // 2026-11-21 03:12:05
};

// "/nix/store/<32 characters that differ by name>-<name>".
inline std::string StorePathOf(const std::string& name) {
  std::string hash(32, '0');
  for (size_t i = 0; i < name.size(); ++i) {
    char& digit = hash[i % 32];
    digit = static_cast<char>('0' + (digit - '0' + name[i]) % 10);
  }
  return "/nix/store/" + hash + "-" + name;
}

inline InboxEntry Output(const std::string& name) {
  InboxEntry entry;
  entry.path = StorePathOf(name);
  entry.created_unix_ms = 1795230725000;
  return entry;
}

inline NewPath Path(const std::string& name) {
  NewPath path;
  path.path = StorePathOf(name);
  path.deriver = StorePathOf(name + ".drv");
  path.system = "x86_64-linux";
  return path;
}

class QueueFixture : public testing::Test {
 protected:
  QueueOptions Options() {
    QueueOptions options;
    options.state_dir = dir_ / "state";
    options.busy_timeout = absl::Milliseconds(200);
    options.clock = &clock_;
    return options;
  }

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(queue_, Queue::Open(Options()));
    ASSERT_NO_FATAL_FAILURE(Configure({"nas"}));
  }

  // Makes these the configured targets, in this order.
  void Configure(const std::vector<std::string>& names) {
    std::vector<Queue::TargetSpec> specs;
    specs.reserve(names.size());
    for (const std::string& name : names) {
      specs.push_back({name, "file:///" + name});
    }
    ASSERT_OK_AND_ASSIGN(targets_, queue_->SyncTargets(specs));
    ASSERT_EQ(targets_.size(), names.size());
  }

  void Accept(const std::vector<std::string>& names) {
    std::vector<NewPath> paths;
    paths.reserve(names.size());
    for (const std::string& name : names) paths.push_back(Path(name));
    ASSERT_OK(queue_->Accept(paths, {}, {}));
  }

  // Base names of what could be claimed, claimed for a minute.
  std::vector<ClaimedJob> Claim(size_t limit = 1000, int target = 0) {
    auto jobs = queue_->Claim(targets_.at(target).id, limit,
                              clock_.Now() + absl::Minutes(1));
    EXPECT_TRUE(jobs.ok()) << jobs.status();
    return jobs.ok() ? *jobs : std::vector<ClaimedJob>();
  }

  // Claims one job, which must be the only one that is due, and settles it.
  void ClaimAndSettle(Settlement settlement) {
    std::vector<ClaimedJob> jobs = Claim();
    ASSERT_EQ(jobs.size(), 1u);
    settlement.job_id = jobs[0].job_id;
    ASSERT_OK(queue_->Settle({settlement}));
  }

  // The job of a path, as people see it; nullopt: none.
  std::optional<JobRow> Job(const std::string& name,
                            const std::string& target = "nas") {
    auto report = Report::Open(Options());
    EXPECT_TRUE(report.ok()) << report.status();
    if (!report.ok()) return std::nullopt;
    auto path = report->Path(StorePathOf(name));
    if (!path.ok()) return std::nullopt;
    for (const JobRow& job : path->jobs) {
      if (job.target == target) return job;
    }
    return std::nullopt;
  }
  std::string StateOf(const std::string& name,
                      const std::string& target = "nas") {
    std::optional<JobRow> job = Job(name, target);
    return job ? std::string(nixq::Name(job->state)) : "none";
  }

  int64_t QueryInt(const std::string& sql) {
    auto database = Database::Open(QueueFile(Options().state_dir), {});
    EXPECT_TRUE(database.ok()) << database.status();
    if (!database.ok()) return -1;
    auto value = database->QueryInt(sql);
    EXPECT_TRUE(value.ok()) << sql << ": " << value.status();
    return value.ok() ? value->value_or(-1) : -1;
  }
  void Execute(const std::string& sql) {
    auto database = Database::Open(QueueFile(Options().state_dir), {});
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_OK(database->Execute(sql));
  }

  TemporaryDirectory dir_;
  FakeClock clock_;
  std::optional<Queue> queue_;
  std::vector<TargetRow> targets_;
};

}  // namespace nixq
