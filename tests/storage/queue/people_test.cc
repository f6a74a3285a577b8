// What people do with sqlite3: the views, and the README's one-liners.

#include <string>
#include <vector>

#include "storage/base/cancel.h"
#include "storage/base/io.h"
#include "storage/base/subprocess.h"
#include "storage/base/text.h"
#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

class People : public QueueFixture {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(QueueFixture::SetUp());
    Accept({"hello-2.12", "lib-1", "app-1", "sent-1"});
    std::vector<ClaimedJob> jobs = Claim();
    ASSERT_THAT(jobs, SizeIs(4));
    Settlement waiting;
    waiting.job_id = jobs[0].job_id;
    waiting.verb = Settlement::Verb::kRetry;
    waiting.next_attempt = clock_.Now() + absl::Minutes(10);
    waiting.error_code = "unavailable";
    waiting.error_text = "connection refused";
    Settlement parked;
    parked.job_id = jobs[1].job_id;
    parked.verb = Settlement::Verb::kPark;
    parked.error_code = "data_loss";
    parked.error_text = "hash mismatch";
    Settlement blocked = parked;
    blocked.job_id = jobs[2].job_id;
    blocked.error_text = "waits";
    blocked.blocked_by = StorePathOf("lib-1");
    Settlement done;
    done.job_id = jobs[3].job_id;
    done.sent_size_bytes = 10;
    done.nar_size_bytes = 30;
    ASSERT_OK(queue_->Settle({waiting, parked, blocked, done}));
    ASSERT_OK(queue_->Accept({}, {Output("floating.drv")}, {}));
    auto writer = InboxWriter::Open(Options().state_dir, absl::Seconds(1));
    ASSERT_OK(writer.status());
    ASSERT_OK(writer->Put({Output("just-built")}));
  }

  // What a shell command prints in the state directory; it must succeed and
  // say nothing else.
  std::string Shell(const std::string& command) {
    SubprocessOptions options;
    options.argv = {"/bin/sh", "-c", command};
    options.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/"};
    options.working_directory = Options().state_dir;
    Cancellation cancel;
    auto result = RunSubprocess(options, cancel);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return "";
    EXPECT_EQ(result->exit_code, 0) << command << "\n"
                                    << result->standard_error;
    EXPECT_EQ(result->standard_error, "") << command;
    return result->standard_output;
  }
  std::string Sql(const std::string& sql) {
    return Shell("exec sqlite3 -readonly queue.db \"" + sql + "\"");
  }
};

TEST_F(People, Queue) {
  EXPECT_EQ(Sql("SELECT name, target, state, attempts, next_attempt, "
                "last_error, path FROM queue ORDER BY name"),
            "floating.drv||derivation|0|at once||" +
                StorePathOf("floating.drv") +
                "\nhello-2.12|nas|queued|1|2026-11-21 03:22:05|connection "
                "refused|" +
                StorePathOf("hello-2.12") + "\njust-built||inbox|0|at once||" +
                StorePathOf("just-built") + "\n");
  EXPECT_THAT(Sql("SELECT age FROM queue WHERE age GLOB "
                  "'*[0-9]d [0-9][0-9]:[0-9][0-9]:[0-9][0-9]'"),
              Not(IsEmpty()));
}

TEST_F(People, QueueIsOldestFirst) {
  Execute("UPDATE inbox SET created_unix_ms = 5");
  EXPECT_THAT(Sql("SELECT name FROM queue"), StartsWith("just-built\n"));
  Execute("UPDATE inbox SET created_unix_ms = 1795230726000");
  EXPECT_THAT(Sql("SELECT name FROM queue"), Not(StartsWith("just-built\n")));
}

// By the number of days, not by its text.
TEST_F(People, QueueIsOldestFirstWhateverTheAge) {
  Execute("DELETE FROM inbox; DELETE FROM derivations; DELETE FROM jobs");
  for (int days : {9, 100, 10}) {
    Execute(absl::StrFormat(
        "INSERT INTO inbox (kind, path, created_unix_ms) VALUES ('output', "
        "'%s', (strftime('%%s', 'now') - %d * 86400) * 1000)",
        StorePathOf(absl::StrFormat("days-%d", days)), days));
  }
  EXPECT_EQ(Sql("SELECT substr(age, 1, instr(age, 'd')) FROM queue"),
            "100d\n10d\n9d\n");
}

TEST_F(People, Parked) {
  EXPECT_EQ(Sql("SELECT * FROM parked"),
            "lib-1|nas|1|data_loss|hash mismatch||2026-11-21 03:12:05|" +
                StorePathOf("lib-1") + "\napp-1|nas|1|data_loss|waits|" +
                StorePathOf("lib-1") + "|2026-11-21 03:12:05|" +
                StorePathOf("app-1") + "\n");
}

TEST_F(People, History) {
  EXPECT_EQ(Sql("SELECT * FROM history"),
            "2026-11-21 03:12:05|sent-1|nas|sent|1|30|10|0|" +
                StorePathOf("sent-1") + "\n");
}

TEST_F(People, Summary) {
  EXPECT_EQ(Sql("SELECT target, health, configured, paused, queued, sending, "
                "parked, done, url FROM summary"),
            "nas|unknown|1|0|1|0|2|1|file:///nas\n");
}

TEST_F(People, Roots) {
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("sent-1"), RootState::kPin));
  ASSERT_OK(queue_->SetRootByPath(StorePathOf("lib-1"), RootState::kNone));
  EXPECT_EQ(Sql("SELECT name, root, open_jobs, queued FROM roots"),
            "hello-2.12|hold|1|2026-11-21 03:12:05\n"
            "app-1|hold|1|2026-11-21 03:12:05\n"
            "sent-1|pin|0|2026-11-21 03:12:05\n");
  // Built again.
  Execute(
      "UPDATE paths SET queued_unix_ms = queued_unix_ms + 1 "
      "WHERE name = 'hello-2.12'");
  EXPECT_EQ(Sql("SELECT name FROM roots"), "app-1\nsent-1\nhello-2.12\n");
}

// Each one-liner of the README works as it stands and has something to say.
TEST_F(People, TenOneLiners) {
  std::string readme = *ReadFile(NIXQ_SOURCE_DIR "/schema/README.md", 1 << 20);
  std::vector<std::string> commands;
  const std::string fence = "```sh\n";
  for (size_t at = readme.find(fence); at != std::string::npos;
       at = readme.find(fence, at)) {
    at += fence.size();
    commands.push_back(readme.substr(at, readme.find("```", at) - at));
  }
  ASSERT_THAT(commands, SizeIs(10));
  for (const std::string& command : commands) {
    SCOPED_TRACE(command);
    std::string output = Shell(command);
    if (command.find("VACUUM INTO") == std::string::npos) {
      EXPECT_THAT(output, Not(IsEmpty()));
    }
  }
  EXPECT_EQ(Shell("sqlite3 queue-copy.db 'SELECT count(*) FROM jobs'"), "4\n");
}

// No table or column without its line in the README.
TEST_F(People, TheReadmeNamesEveryColumn) {
  std::string readme = *ReadFile(NIXQ_SOURCE_DIR "/schema/README.md", 1 << 20);
  std::string names =
      Sql("SELECT DISTINCT name FROM (SELECT t.name FROM pragma_table_list t "
          "WHERE t.schema = 'main' AND t.name NOT LIKE 'sqlite%' UNION SELECT "
          "c.name FROM pragma_table_list t, pragma_table_info(t.name) c WHERE "
          "t.type = 'table' AND t.name NOT LIKE 'sqlite%')");
  ASSERT_THAT(names, HasSubstr("next_attempt_unix_ms\n"));
  ASSERT_THAT(names, HasSubstr("history\n"));
  for (const std::string& name : Split(Trim(names), '\n')) {
    EXPECT_THAT(readme, HasSubstr("`" + name + "`"));
  }
}

}  // namespace
}  // namespace nixq
