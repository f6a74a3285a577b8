// The state machine of a job: each verb in each state.

#include <cctype>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/storage/queue/queue_fixture.h"

namespace nixq {
namespace {

// What a job can be before a verb: "waiting" is queued with a time to come,
// "late" is sending with a lease that has run out.
constexpr const char* kStates[] = {"none", "queued", "waiting", "sending",
                                   "late", "done",   "parked"};

struct Row {
  const char* verb;
  // The state afterwards for each of kStates: None, Queued, Sending, Done,
  // Parked.
  std::string after;
};

// clang-format off
const Row kTable[] = {
    // from           NQWSLDP
    {"accept",        "QQQSSQQ"},
    {"claim",         "NSQSSDP"},
    {"claim_ref",     "SSSSSSP"},
    {"settle_done",   "NQQDDDP"},
    {"settle_retry",  "NQQQQDP"},
    {"settle_release","NQQQQDP"},
    {"settle_park",   "NQQPPDP"},
    {"renew",         "NQQSSDP"},
    {"release_all",   "NQQQQDP"},
    {"retry",         "NQQSSDQ"},
    {"retry_parked",  "NQQSSDQ"},
    {"forget",        "NNNNNNN"},
    {"forget_parked", "NQQSSDN"},
    {"remove_old",    "NQQSSNP"},
};
// clang-format on

class QueueStates : public QueueFixture {
 protected:
  // Brings the job of `name` into a state of kStates; returns its id or 0.
  int64_t Bring(const std::string& name, const std::string& state) {
    if (state == "none") return 0;
    Accept({name});
    if (state == "queued") return IdOf(name);
    absl::Time lease =
        clock_.Now() + (state == "late" ? absl::Seconds(-1) : absl::Minutes(1));
    auto jobs = queue_->Claim(targets_[0].id, 1, lease);
    EXPECT_TRUE(jobs.ok() && jobs->size() == 1);
    Settlement settlement;
    settlement.job_id = IdOf(name);
    if (state == "waiting") {
      settlement.verb = Settlement::Verb::kRetry;
      settlement.next_attempt = clock_.Now() + absl::Minutes(5);
    } else if (state == "parked") {
      settlement.verb = Settlement::Verb::kPark;
    }
    if (state == "waiting" || state == "parked" || state == "done") {
      EXPECT_OK(queue_->Settle({settlement}));
    }
    return settlement.job_id;
  }

  int64_t IdOf(const std::string& name) {
    return QueryInt(
        "SELECT j.id FROM jobs j JOIN paths p ON p.id = path_id "
        "WHERE path = '" +
        StorePathOf(name) + "'");
  }

  void Apply(const std::string& verb, const std::string& name, int64_t id) {
    JobSelection selection;
    selection.paths = {StorePathOf(name)};
    selection.parked_only = verb.ends_with("_parked");
    Settlement settlement;
    settlement.job_id = id;
    settlement.next_attempt = clock_.Now() + absl::Minutes(1);
    absl::Time lease = clock_.Now() + absl::Minutes(1);
    std::map<std::string, std::function<absl::Status()>> verbs = {
        {"accept", [&] { return queue_->Accept({Path(name)}, {}, {}); }},
        {"claim",
         [&] { return queue_->Claim(targets_[0].id, 10, lease).status(); }},
        {"claim_ref",
         [&] {
           return queue_->ClaimReferences(targets_[0].id, {Path(name)}, lease)
               .status();
         }},
        {"renew", [&] { return queue_->RenewLeases({id}, lease); }},
        {"release_all", [&] { return queue_->ReleaseAll().status(); }},
        {"remove_old",
         [&] {
           return queue_->RemoveFinished(clock_.Now() + absl::Hours(1), 100)
               .status();
         }},
    };
    if (verb.starts_with("settle_")) {
      settlement.verb = verb == "settle_done"      ? Settlement::Verb::kDone
                        : verb == "settle_retry"   ? Settlement::Verb::kRetry
                        : verb == "settle_release" ? Settlement::Verb::kRelease
                                                   : Settlement::Verb::kPark;
      EXPECT_OK(queue_->Settle({settlement}));
    } else if (verb.starts_with("retry")) {
      EXPECT_OK(queue_->Retry(selection).status());
    } else if (verb.starts_with("forget")) {
      EXPECT_OK(queue_->Forget(selection).status());
    } else {
      EXPECT_OK(verbs.at(verb)());
    }
  }
};

TEST_F(QueueStates, EveryVerbInEveryState) {
  for (const Row& row : kTable) {
    ASSERT_EQ(row.after.size(), std::size(kStates)) << row.verb;
    for (size_t i = 0; i < std::size(kStates); ++i) {
      SCOPED_TRACE(absl::StrFormat("%s when %s", row.verb, kStates[i]));
      const std::string name = absl::StrFormat("%s-%s", row.verb, kStates[i]);
      int64_t id = Bring(name, kStates[i]);
      std::string before = kStates[i] == std::string("waiting") ? "queued"
                           : kStates[i] == std::string("late")  ? "sending"
                                                                : kStates[i];
      ASSERT_EQ(StateOf(name), before);
      Apply(row.verb, name, id);
      EXPECT_EQ(std::toupper(StateOf(name)[0]), row.after[i]);
      ASSERT_OK(queue_->Forget({}).status());
    }
  }
}

// The counters that triggers keep are what counting would give, whatever was
// done, also by hand.
TEST_F(QueueStates, CountersAgreeWithTheJobs) {
  for (const Row& row : kTable) {
    for (const char* state : kStates) {
      std::string name = absl::StrFormat("%s-%s", row.verb, state);
      Apply(row.verb, name, Bring(name, state));
    }
  }
  Execute("DELETE FROM jobs WHERE id % 3 = 0");
  Execute("UPDATE jobs SET state = 'done' WHERE id % 3 = 1");
  EXPECT_GT(QueryInt("SELECT count(*) FROM jobs WHERE state <> 'done'"), 0);
  EXPECT_GT(QueryInt("SELECT count(*) FROM jobs WHERE state = 'done'"), 0);
  EXPECT_EQ(QueryInt("SELECT count(*) FROM paths p WHERE job_count <> (SELECT "
                     "count(*) FROM jobs WHERE path_id = p.id) OR open_count "
                     "<> (SELECT count(*) FROM jobs WHERE path_id = p.id AND "
                     "state <> 'done')"),
            0);
}

}  // namespace
}  // namespace nixq
