#include "storage/cache/copy_batch.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"

namespace nixq {
namespace {

using Code = absl::StatusCode;
using Scope = SshFailure::Scope;

StorePath Path(int number) {
  return *StorePath::FromBaseName(absl::StrFormat("%032d-path", number));
}

std::vector<StorePath> Paths(int count) {
  std::vector<StorePath> paths;
  paths.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) paths.push_back(Path(i));
  return paths;
}

// A receiver that refuses some paths with one kind of failure.
class Receiver {
 public:
  explicit Receiver(SshFailure failure, bool names_path)
      : failure_(std::move(failure)), names_path_(names_path) {}

  std::set<int> bad;
  bool has_signature = true;
  std::function<std::optional<SshFailure>(int process)> before;

  std::vector<CopyOutcome> Send(const std::vector<StorePath>& paths) {
    return SendBatch(
        paths, 11,
        [this](const std::vector<StorePath>& sent) { return Take(sent); },
        [this](const std::string&) { return has_signature; }, cancel);
  }

  int processes = 0;
  size_t longest_argv = 0;
  std::set<StorePath> arrived;
  Cancellation cancel;

 private:
  std::optional<SshFailure> Take(const std::vector<StorePath>& paths) {
    ++processes;
    size_t argv = 0;
    for (const StorePath& path : paths) argv += path.base_name().size() + 12;
    longest_argv = std::max(longest_argv, argv);
    if (before) {
      if (auto failure = before(processes)) return failure;
    }
    for (const StorePath& path : paths) {
      for (int number : bad) {
        if (path != Path(number)) continue;
        SshFailure failure = failure_;
        failure.path = names_path_ ? path.base_name() : "";
        return failure;
      }
    }
    arrived.insert(paths.begin(), paths.end());
    return std::nullopt;
  }

  SshFailure failure_;
  bool names_path_;
};

const SshFailure kUnsigned = {Code::kPermissionDenied, Scope::kPath, "unsigned",
                              ""};
const SshFailure kMystery = {Code::kUnknown, Scope::kUnknown, "mystery", ""};
const SshFailure kBroken = {Code::kUnavailable, Scope::kUnknown, "broke off",
                            ""};
const SshFailure kGone = {Code::kUnavailable, Scope::kTarget, "gone", ""};

void ExpectAll(const std::vector<CopyOutcome>& outcomes, size_t count,
               Code code, bool blamed) {
  EXPECT_EQ(outcomes.size(), count);
  for (const CopyOutcome& outcome : outcomes) {
    EXPECT_EQ(outcome.status.code(), code) << outcome.status;
    EXPECT_EQ(IsPathsFault(outcome.status), blamed) << outcome.status;
  }
}

// The path that was sent for it is whole; what it needs is not.
TEST(CopyBatch, ACorruptReferenceIsNamedAndNotItsReferrer) {
  const auto send = [](const std::vector<StorePath>&) {
    return SshFailure{Code::kDataLoss, Scope::kPath, "hash mismatch",
                      Path(7).base_name()};
  };
  Cancellation cancel;
  const auto outcomes = SendBatch(
      Paths(1), 11, send, [](const std::string&) { return true; }, cancel);
  ExpectAll(outcomes, 1, Code::kFailedPrecondition, true);
  EXPECT_NE(outcomes[0].status.message().find(Path(7).base_name()),
            std::string::npos);
}

TEST(CopyBatch, AllArriveInOneProcess) {
  Receiver receiver(kMystery, false);
  ExpectAll(receiver.Send(Paths(500)), 500, Code::kOk, false);
  EXPECT_EQ(receiver.processes, 1);
  EXPECT_EQ(receiver.arrived.size(), 500u);
}

TEST(CopyBatch, NothingIsNoProcess) {
  Receiver receiver(kMystery, false);
  EXPECT_TRUE(receiver.Send({}).empty());
  EXPECT_EQ(receiver.processes, 0);
}

TEST(CopyBatch, CommandLinesAreBounded) {
  Receiver receiver(kMystery, false);
  ExpectAll(receiver.Send(Paths(5000)), 5000, Code::kOk, false);
  EXPECT_LE(receiver.longest_argv, 64u * 1024);
  EXPECT_EQ(receiver.processes, 4);  // of 50 bytes for each path
}

TEST(CopyBatch, OneBadPathOf64ThatIsNamed) {
  Receiver receiver(kUnsigned, true);
  receiver.bad = {37};
  const auto outcomes = receiver.Send(Paths(64));
  EXPECT_EQ(receiver.arrived.size(), 63u);
  EXPECT_EQ(receiver.processes, 2);
  EXPECT_EQ(outcomes[37].status.code(), Code::kPermissionDenied);
  EXPECT_TRUE(IsPathsFault(outcomes[37].status));
}

TEST(CopyBatch, OneBadPathOf64ThatIsNotNamed) {
  for (int bad = 0; bad < 64; ++bad) {
    Receiver receiver(kMystery, false);
    receiver.bad = {bad};
    const auto outcomes = receiver.Send(Paths(64));
    EXPECT_EQ(receiver.arrived.size(), 63u);
    EXPECT_LE(receiver.processes, 13);
    for (int i = 0; i < 64; ++i) {
      const absl::Status& status = outcomes[static_cast<size_t>(i)].status;
      EXPECT_EQ(outcomes[static_cast<size_t>(i)].path, Path(i));
      EXPECT_EQ(status.code(), i == bad ? Code::kInvalidArgument : Code::kOk);
      EXPECT_EQ(IsPathsFault(status), i == bad);
    }
  }
}

TEST(CopyBatch, ConnectionThatBreaksForOnePathAlone) {
  Receiver receiver(kBroken, false);
  receiver.bad = {3};
  const auto outcomes = receiver.Send(Paths(8));
  EXPECT_EQ(receiver.arrived.size(), 7u);
  EXPECT_EQ(outcomes[3].status.code(), Code::kUnavailable);
  EXPECT_TRUE(IsPathsFault(outcomes[3].status));
}

TEST(CopyBatch, TargetsFailureIsNeverBisected) {
  Receiver receiver(kMystery, false);
  receiver.before = [](int) { return kGone; };
  ExpectAll(receiver.Send(Paths(64)), 64, Code::kUnavailable, false);
  EXPECT_EQ(receiver.processes, 1);
}

TEST(CopyBatch, TargetThatGoesWhileBisecting) {
  Receiver receiver(kMystery, false);
  receiver.bad = {63};
  receiver.before = [](int process) {
    return process == 3 ? std::optional(kGone) : std::nullopt;
  };
  const auto outcomes = receiver.Send(Paths(64));
  EXPECT_EQ(receiver.processes, 3);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(outcomes[i].status.code(),
              i < 32 ? Code::kOk : Code::kUnavailable);
    EXPECT_FALSE(IsPathsFault(outcomes[i].status));
  }
}

TEST(CopyBatch, ReceiverThatTrustsNothingIsTheTargetsFault) {
  for (const SshFailure& failure : {kUnsigned, kMystery, kBroken}) {
    Receiver receiver(failure, failure.scope == Scope::kPath);
    for (int i = 0; i < 500; ++i) receiver.bad.insert(i);
    ExpectAll(receiver.Send(Paths(500)), 500, failure.code, false);
    EXPECT_LE(receiver.processes, 11);
  }
}

// The first ones being bad does not make the target bad.
TEST(CopyBatch, ManyBadPathsInARow) {
  for (bool named : {true, false}) {
    Receiver receiver(named ? kUnsigned : kMystery, named);
    for (int i = 0; i < 20; ++i) receiver.bad.insert(i);
    const auto outcomes = receiver.Send(Paths(64));
    EXPECT_EQ(receiver.arrived.size(), 44u);
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(IsPathsFault(outcomes[i].status), i < 20) << i;
      EXPECT_EQ(outcomes[i].status.ok(), i >= 20) << i;
    }
  }
}

TEST(CopyBatch, ProcessesAreBounded) {
  Receiver receiver(kMystery, false);
  for (int i = 1; i < 1000; i += 2) receiver.bad.insert(i);
  const auto outcomes = receiver.Send(Paths(1000));
  EXPECT_EQ(receiver.processes, kMaxProcessesPerBatch);
  size_t untried = 0;
  for (const CopyOutcome& outcome : outcomes) {
    untried += outcome.status.code() == Code::kAborted ? 1 : 0;
    EXPECT_EQ(outcome.status.ok(), receiver.arrived.count(outcome.path) == 1);
    EXPECT_EQ(IsPathsFault(outcome.status), !outcome.status.ok());
  }
  EXPECT_GT(untried, 0u);
}

TEST(CopyBatch, LonePathWithoutAnySignatureIsItsOwnFault) {
  for (bool has_signature : {true, false}) {
    Receiver receiver(kUnsigned, true);
    receiver.bad = {0};
    receiver.has_signature = has_signature;
    ExpectAll(receiver.Send(Paths(1)), 1, Code::kPermissionDenied,
              !has_signature);
  }
}

TEST(CopyBatch, LonePathWithUnknownWordsMayPassAnotherTime) {
  Receiver receiver(kMystery, false);
  receiver.bad = {0};
  ExpectAll(receiver.Send(Paths(1)), 1, Code::kUnknown, true);
}

TEST(CopyBatch, PathsThatAreNotHereAreTheirOwnFault) {
  Receiver receiver({Code::kNotFound, Scope::kPath, "not valid", ""}, true);
  for (int i = 0; i < 30; ++i) receiver.bad.insert(i);
  ExpectAll(receiver.Send(Paths(30)), 30, Code::kNotFound, true);
}

// Its reference is not over there: that is not "not valid here".
TEST(CopyBatch, MissingReferenceIsNotAMissingPath) {
  Receiver receiver({Code::kNotFound, Scope::kPath, "not valid", ""}, true);
  receiver.before = [](int) {
    return SshFailure{Code::kNotFound, Scope::kPath, "not valid",
                      Path(99).base_name()};
  };
  ExpectAll(receiver.Send(Paths(1)), 1, Code::kUnknown, true);
}

TEST(CopyBatch, CancellationEndsIt) {
  Receiver receiver(kMystery, false);
  receiver.before = [&](int process) -> std::optional<SshFailure> {
    if (process == 2) receiver.cancel.Cancel();
    return kMystery;
  };
  ExpectAll(receiver.Send(Paths(64)), 64, Code::kCancelled, false);
  EXPECT_EQ(receiver.processes, 2);
}

}  // namespace
}  // namespace nixq
