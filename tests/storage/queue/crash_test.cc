// Power cuts: after every write and flush of a run of hooks and the daemon,
// everything that was promised is there.

#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "storage/queue/migrations.h"
#include "tests/storage/queue/crash_disk.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

// The whole content, as one text: equal if and only if nothing differs that
// matters.
std::string ContentOf(const std::string& state_dir) {
  auto database = Database::Open(QueueFile(state_dir), {});
  if (!database.ok()) return database.status().ToString();
  auto version = SchemaVersion(*database);
  if (!version.ok()) return version.status().ToString();
  const char* inbox =
      "SELECT coalesce(group_concat(path), '') FROM (SELECT path FROM inbox "
      "ORDER BY id)";
  const char* all =
      "SELECT (SELECT coalesce(group_concat(path), '') FROM (SELECT path FROM "
      "inbox ORDER BY id)) || ' / ' || (SELECT coalesce(group_concat(name || "
      "root || open_count), '') FROM (SELECT * FROM paths ORDER BY id)) || "
      "' / ' || (SELECT coalesce(group_concat(id || state || outcome || "
      "attempts || error_text), '') FROM (SELECT * FROM jobs ORDER BY id)) || "
      "' / ' || (SELECT coalesce(group_concat(name || health || paused), '') "
      "FROM (SELECT * FROM targets ORDER BY id))";
  auto statement = database->Prepare(*version < 2 ? inbox : all);
  if (!statement.ok()) return statement.status().ToString();
  auto row = statement->Step();
  if (!row.ok() || !*row) return row.status().ToString();
  return absl::StrFormat("%d: %s", *version, statement->Text(0));
}

// One run: what happened, what the content was after each step, and which
// steps promised that it would stay.
struct Course {
  std::vector<std::string> contents;  // [0]: before the first step
  std::vector<bool> promised;         // by step, from 1
};

class CrashTest : public testing::Test {
 protected:
  std::string State() { return dir_ / "state"; }

  void Step(CrashDisk* disk, Course* course, bool promises,
            const std::function<absl::Status()>& step) {
    ASSERT_OK(step());
    course->promised.push_back(promises);
    disk->Mark(static_cast<int64_t>(course->promised.size()) - 1);
    course->contents.push_back(ContentOf(State()));
  }

  absl::Status Put(const std::string& name, int count = 1) {
    auto writer = InboxWriter::Open(State(), absl::Seconds(1));
    if (!writer.ok()) return writer.status();
    std::vector<InboxEntry> entries;
    entries.reserve(count);
    for (int i = 0; i < count; ++i) {
      entries.push_back(Output(absl::StrFormat("%s-%d", name, i)));
    }
    return writer->Put(entries);
  }

  // Hooks before there was a daemon, its first start, then both at work,
  // with checkpoints, and hooks again when it is gone.
  void Play(CrashDisk* disk, Course* course) {
    ASSERT_OK(InboxWriter::Open(State(), absl::Seconds(1)).status());
    course->contents.push_back(ContentOf(State()));
    course->promised.push_back(false);
    for (int i = 0; i < 3; ++i) {
      Step(disk, course, true,
           [&] { return Put(absl::StrFormat("early%d", i)); });
    }
    for (size_t i = 2; i <= std::size(schema::kMigrations); ++i) {
      Step(disk, course, false, [&] {
        auto database = Database::Open(QueueFile(State()), {});
        return Migrate(*database, std::span(schema::kMigrations).first(i));
      });
    }
    PlayDaemon(disk, course);
    Step(disk, course, true, [&] { return Put("late"); });
  }

  void PlayDaemon(CrashDisk* disk, Course* course) {
    QueueOptions options;
    options.state_dir = State();
    options.clock = &clock_;
    auto queue = Queue::Open(options);
    ASSERT_OK(queue.status());
    Step(disk, course, false, [&] {
      return queue->SyncTargets({{"nas", "x"}}).status();
    });
    for (int round = 0; round < 4; ++round) {
      Step(disk, course, true,
           [&] { return Put(absl::StrFormat("round%d", round), 3); });
      Step(disk, course, false, [&] { return AcceptAll(*queue); });
      std::vector<ClaimedJob> jobs;
      Step(disk, course, false, [&] {
        auto claimed = queue->Claim(1, 3, clock_.Now() + absl::Minutes(1));
        if (claimed.ok()) jobs = *claimed;
        return claimed.status();
      });
      Step(disk, course, true,
           [&] { return Put(absl::StrFormat("between%d", round)); });
      Step(disk, course, false, [&] { return SettleAll(*queue, jobs); });
      if (round % 2 == 1) {
        Step(disk, course, false, [&] { return queue->Checkpoint(); });
      }
    }
  }

  absl::Status AcceptAll(Queue& queue) {
    auto entries = queue.ReadInbox(100);
    if (!entries.ok()) return entries.status();
    std::vector<NewPath> paths;
    std::vector<int64_t> ids;
    for (const InboxEntry& entry : *entries) {
      paths.push_back({.path = entry.path});
      ids.push_back(entry.id);
    }
    return queue.Accept(paths, {}, ids);
  }

  // The first is done, the second waits, the third is parked.
  absl::Status SettleAll(Queue& queue, const std::vector<ClaimedJob>& jobs) {
    std::vector<Settlement> settlements;
    for (const ClaimedJob& job : jobs) {
      Settlement settlement;
      settlement.job_id = job.job_id;
      settlement.verb = settlements.empty()       ? Settlement::Verb::kDone
                        : settlements.size() == 1 ? Settlement::Verb::kRetry
                                                  : Settlement::Verb::kPark;
      settlements.push_back(settlement);
    }
    return queue.Settle(settlements);
  }

  struct Outcome {
    int cuts = 0;
    int cuts_that_lost_writes = 0;
    int cuts_that_undid_steps = 0;
    int broken = 0;  // damaged, or less there than was promised
    std::string first_complaint;
  };

  // Cuts the power after each operation, with each seed.
  Outcome CutEverywhere(const CrashDisk& disk, const Course& course,
                        const std::vector<unsigned>& seeds) {
    Outcome outcome;
    size_t promised = 0;
    size_t completed = 0;
    for (size_t cut = 0; cut <= disk.log().size(); ++cut) {
      if (cut > 0 &&
          disk.log()[cut - 1].kind == CrashDisk::Operation::Kind::kMark) {
        completed = disk.log()[cut - 1].offset;
        if (course.promised[completed]) promised = completed;
        continue;  // nothing has changed on the disk
      }
      for (unsigned seed : seeds) {
        std::mt19937 random(seed * 1000003 + static_cast<unsigned>(cut));
        int lost = 0;
        std::string state = dir_ / absl::StrFormat("cut-%d-%d", cut, seed);
        WriteOut(state, disk.After(cut, random, &lost));
        ++outcome.cuts;
        outcome.cuts_that_lost_writes += lost > 0;
        std::string complaint =
            Complaint(state, course, promised, completed, &outcome);
        if (!complaint.empty() && outcome.broken++ == 0) {
          outcome.first_complaint =
              absl::StrFormat("cut %d, seed %d: %s", cut, seed, complaint);
        }
        std::filesystem::remove_all(state);
      }
    }
    return outcome;
  }

  void WriteOut(const std::string& state,
                const std::map<std::string, std::string>& files) {
    std::filesystem::create_directory(state);
    for (const auto& [name, content] : files) {
      std::ofstream(std::filesystem::path(state) / name, std::ios::binary)
          << content;
    }
  }

  // What is wrong after the power is back; "" if nothing is.
  std::string Complaint(const std::string& state, const Course& course,
                        size_t promised, size_t completed, Outcome* outcome) {
    std::string content = ContentOf(state);
    bool found = false;
    for (size_t i = promised; i <= completed + 1; ++i) {
      found |= i < course.contents.size() && content == course.contents[i];
    }
    if (!found) {
      return absl::StrFormat("promised step %d of %d, found %s", promised,
                             completed, content);
    }
    outcome->cuts_that_undid_steps += content != course.contents[completed];
    QueueOptions options;
    options.state_dir = state;
    auto queue = Queue::Open(options);
    if (!queue.ok()) return queue.status().ToString();
    auto report = Report::Open(options);
    if (!report.ok()) return report.status().ToString();
    return report->CheckIntegrity().ok() ? "" : "damaged";
  }

  TemporaryDirectory dir_;
  FakeClock clock_;
};

TEST_F(CrashTest, WhatWasPromisedSurvivesAPowerCutAnywhere) {
  Course course;
  CrashDisk disk(/*honest=*/true);
  ASSERT_NO_FATAL_FAILURE(Play(&disk, &course));
  disk.Stop();
  const std::vector<unsigned> seeds = {1, 2, 3};
  const size_t operations = disk.log().size();
  // The run had a checkpoint, and a WAL that began anew after one.
  int wal_headers = 0;
  int pages_moved = 0;
  for (const CrashDisk::Operation& operation : disk.log()) {
    if (operation.kind != CrashDisk::Operation::Kind::kWrite) continue;
    wal_headers += operation.file == "queue.db-wal" && operation.offset == 0;
    pages_moved += operation.file == "queue.db";
  }
  EXPECT_GE(wal_headers, 2);
  EXPECT_GT(pages_moved, 0);
  Outcome outcome = CutEverywhere(disk, course, seeds);
  printf(
      "%zu operations, %d cuts (seeds 1 to 3): %d lost writes, %d undid "
      "steps, %d broke a promise\n",
      operations, outcome.cuts, outcome.cuts_that_lost_writes,
      outcome.cuts_that_undid_steps, outcome.broken);
  EXPECT_EQ(outcome.broken, 0) << outcome.first_complaint;
  // The cuts did cut.
  EXPECT_GT(outcome.cuts, 100);
  EXPECT_GT(outcome.cuts_that_lost_writes, outcome.cuts / 4);
  EXPECT_GT(outcome.cuts_that_undid_steps, 0);
}

// The same on a disk that does not flush: the test must notice.
TEST_F(CrashTest, WithoutFlushesPromisesBreak) {
  Course course;
  CrashDisk disk(/*honest=*/false);
  ASSERT_NO_FATAL_FAILURE(Play(&disk, &course));
  disk.Stop();
  Outcome outcome = CutEverywhere(disk, course, {1});
  printf("%d cuts (seed 1): %d broke a promise\n", outcome.cuts,
         outcome.broken);
  EXPECT_GT(outcome.broken, outcome.cuts / 4) << outcome.first_complaint;
}

}  // namespace
}  // namespace nixq
