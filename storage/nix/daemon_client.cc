#include "storage/nix/daemon_client.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_format.h"
#include "storage/base/status.h"
#include "storage/base/text.h"
#include "storage/nix/daemon_session.h"
#include "storage/nix/wire.h"

namespace nixq {
namespace {

enum class Operation : uint64_t {
  kIsValidPath = 1,
  kAddTempRoot = 11,
  kQueryAllValidPaths = 23,
  kQueryPathInfo = 26,
  kQueryValidPaths = 31,
  kAddSignatures = 37,
  kQueryDerivationOutputMap = 41,
};

// Requests ahead of their replies. Beyond a few hundred nothing is gained.
constexpr size_t kWindow = 256;
// Paths in one request that takes a set of them.
constexpr size_t kPathsPerRequest = 1000;
constexpr size_t kMaxPaths = 10'000'000;
constexpr size_t kMaxReferences = 1'000'000;
constexpr size_t kMaxSignatures = 10'000;
constexpr size_t kMaxOutputs = 100'000;
constexpr size_t kMaxTempRoots = 1'000'000;
constexpr size_t kSignatureBytes = 64;
// What Nix before 2.17 answers to users that it does not trust.
constexpr std::string_view kNotPrivileged = "not privileged";

// Speaks of one session: puts requests, reads what they bring.
class Conversation {
 public:
  Conversation(const StoreDir& store_dir, Wire& wire)
      : store_dir_(store_dir), wire_(wire) {}

  void Put(Operation operation) {
    wire_.PutUint(static_cast<uint64_t>(operation));
  }
  void Put(Operation operation, const StorePath& path) {
    Put(operation);
    wire_.PutString(store_dir_.Print(path));
  }
  Wire& wire() { return wire_; }

  // Reads `count` replies, in order, to requests that `put` puts a window
  // ahead. After an error of the daemon no more are put, those on their way
  // are read, and the first error is returned, as UNKNOWN.
  absl::Status Pipeline(size_t count, absl::FunctionRef<void(size_t)> put,
                        absl::FunctionRef<absl::Status(size_t)> read);
  // The same for one request.
  absl::Status Ask(absl::FunctionRef<absl::Status()> read);

  absl::StatusOr<StorePath> ReadPath();
  absl::StatusOr<std::optional<StorePath>> ReadOptionalPath();
  absl::StatusOr<std::vector<StorePath>> ReadPaths(size_t max_count);
  // nullopt: not valid.
  absl::StatusOr<std::optional<PathInfo>> ReadPathInfo(const StorePath& path);

 private:
  absl::StatusOr<StorePath> ParsePath(const std::string& text);

  const StoreDir& store_dir_;
  Wire& wire_;
};

absl::Status Conversation::Pipeline(
    size_t count, absl::FunctionRef<void(size_t)> put,
    absl::FunctionRef<absl::Status(size_t)> read) {
  absl::Status first_error;
  size_t sent = 0;
  for (size_t done = 0; done < count; ++done) {
    // In half windows, so that one write carries many requests.
    if (sent - done <= kWindow / 2) {
      while (sent < count && sent - done < kWindow) put(sent++);
    }
    absl::StatusOr<std::optional<std::string>> error = wire_.AwaitReply();
    if (!error.ok()) {
      // A daemon that will not go on says why before it hangs up.
      return first_error.ok() ? error.status() : first_error;
    }
    if (!error->has_value()) {
      NIXQ_RETURN_IF_ERROR(read(done));
    } else if (first_error.ok()) {
      first_error = absl::UnknownError(**error);
      count = sent;
    }
  }
  return first_error;
}

absl::Status Conversation::Ask(absl::FunctionRef<absl::Status()> read) {
  return Pipeline(
      1, [](size_t) {}, [read](size_t) { return read(); });
}

absl::StatusOr<StorePath> Conversation::ParsePath(const std::string& text) {
  auto path = store_dir_.ParsePath(text);
  if (!path.ok()) return absl::DataLossError(path.status().message());
  return path;
}

absl::StatusOr<StorePath> Conversation::ReadPath() {
  NIXQ_ASSIGN_OR_RETURN(const std::string text, wire_.ReadString());
  return ParsePath(text);
}

absl::StatusOr<std::optional<StorePath>> Conversation::ReadOptionalPath() {
  NIXQ_ASSIGN_OR_RETURN(const std::string text, wire_.ReadString());
  if (text.empty()) return std::nullopt;
  return ParsePath(text);
}

absl::StatusOr<std::vector<StorePath>> Conversation::ReadPaths(
    size_t max_count) {
  NIXQ_ASSIGN_OR_RETURN(const size_t count, wire_.ReadCount(max_count));
  std::vector<StorePath> paths;
  while (paths.size() < count) {
    NIXQ_ASSIGN_OR_RETURN(StorePath path, ReadPath());
    paths.push_back(std::move(path));
  }
  return paths;
}

absl::StatusOr<std::optional<PathInfo>> Conversation::ReadPathInfo(
    const StorePath& path) {
  NIXQ_ASSIGN_OR_RETURN(const bool valid, wire_.ReadBool());
  if (!valid) return std::nullopt;
  PathInfo info{path, {}, 0, {}, {}, {}, false, {}, {}};
  NIXQ_ASSIGN_OR_RETURN(info.deriver, ReadOptionalPath());
  NIXQ_ASSIGN_OR_RETURN(const std::string hash, wire_.ReadString());
  auto nar_hash = ParseSha256(hash);
  if (!nar_hash.ok()) return absl::DataLossError(nar_hash.status().message());
  info.nar_hash = *nar_hash;
  NIXQ_ASSIGN_OR_RETURN(info.references, ReadPaths(kMaxReferences));
  std::sort(info.references.begin(), info.references.end());
  NIXQ_ASSIGN_OR_RETURN(const uint64_t registered_unix_s, wire_.ReadUint());
  info.registration_time =
      absl::FromUnixSeconds(static_cast<int64_t>(registered_unix_s));
  NIXQ_ASSIGN_OR_RETURN(info.nar_size_bytes, wire_.ReadUint());
  NIXQ_ASSIGN_OR_RETURN(info.ultimate, wire_.ReadBool());
  NIXQ_ASSIGN_OR_RETURN(info.signatures, wire_.ReadStrings(kMaxSignatures));
  NIXQ_ASSIGN_OR_RETURN(info.content_address, wire_.ReadString());
  return info;
}

// What the daemon itself calls an error (a locked database, a full disk) may
// well go next time.
absl::Status DaemonsErrorAsUnavailable(const absl::Status& status) {
  if (!absl::IsUnknown(status)) return status;
  const absl::Status unavailable = absl::UnavailableError(status.message());
  return IsPathsFault(status) ? BlamePath(unavailable) : unavailable;
}

// Nix 2.34 and later hang up on a malformed one, so it never gets there.
absl::Status CheckSignature(const std::string& signature) {
  const size_t colon = signature.find(':');
  if (colon != 0 && colon != std::string::npos) {
    auto bytes = Base64Decode(std::string_view(signature).substr(colon + 1));
    if (bytes.has_value() && bytes->size() == kSignatureBytes) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError("not a signature (name:base64): " +
                                    Printable(signature, 200));
}

}  // namespace

class DaemonClient::Impl {
 public:
  explicit Impl(DaemonClientOptions options) : options_(std::move(options)) {}

  using Body = absl::FunctionRef<absl::Status(Conversation&)>;

  // Runs `body` over the connection that has the temporary roots.
  absl::Status Call(Body body);
  // Runs `body` over a connection of its own: a refused signature ends the
  // worker at the other end, and the temporary roots must not go with it.
  absl::Status CallForSigning(Body body);

  absl::StatusOr<DaemonInfo> Info();
  absl::Status AddTempRoots(const std::vector<StorePath>& paths);
  void DropTempRoots();
  absl::Status AddSignatures(
      const std::vector<std::pair<StorePath, std::vector<std::string>>>&
          signatures);
  void Stop() { cancel_.Cancel(); }

 private:
  struct Line {
    std::unique_ptr<DaemonSession> session;
    // False after any error. A session that is not usable stays open until
    // the next one has the temporary roots.
    bool usable = false;
    bool keeps_roots = false;
  };

  absl::Status CallOver(Line& line, Body body);
  absl::Status EnsureConnected(Line& line);
  absl::Status PutRoots(Conversation& conversation,
                        const std::vector<StorePath>& paths);

  const DaemonClientOptions options_;
  Cancellation cancel_;
  std::mutex mutex_;  // guards what follows; held for the whole of a call
  Line main_{nullptr, false, true};
  Line signing_;
  std::set<StorePath> temp_roots_;
};

absl::Status DaemonClient::Impl::Call(Body body) {
  std::lock_guard<std::mutex> lock(mutex_);
  return CallOver(main_, body);
}

absl::Status DaemonClient::Impl::CallForSigning(Body body) {
  std::lock_guard<std::mutex> lock(mutex_);
  return CallOver(signing_, body);
}

absl::Status DaemonClient::Impl::EnsureConnected(Line& line) {
  NIXQ_RETURN_IF_ERROR(cancel_.Check());
  if (line.usable && !line.session->wire().SpokeOutOfTurn()) {
    return absl::OkStatus();
  }
  line.usable = false;
  NIXQ_ASSIGN_OR_RETURN(auto session,
                        DaemonSession::Connect(options_, cancel_));
  if (line.keeps_roots && !temp_roots_.empty()) {
    Conversation conversation(options_.store_dir, session->wire());
    NIXQ_RETURN_IF_ERROR(
        Annotate(DaemonsErrorAsUnavailable(PutRoots(
                     conversation, {temp_roots_.begin(), temp_roots_.end()})),
                 "add the temporary roots again"));
  }
  line.session = std::move(session);
  line.usable = true;
  return absl::OkStatus();
}

absl::Status DaemonClient::Impl::CallOver(Line& line, Body body) {
  for (bool last_try = false;; last_try = true) {
    NIXQ_RETURN_IF_ERROR(EnsureConnected(line));
    Conversation conversation(options_.store_dir, line.session->wire());
    absl::Status status = body(conversation);
    if (status.ok()) return status;
    line.usable = false;
    const bool lost = conversation.wire().broken();
    if (lost && absl::IsUnavailable(status) && !last_try) continue;
    return Annotate(DaemonsErrorAsUnavailable(status),
                    "Nix daemon at " + line.session->info().transport);
  }
}

absl::StatusOr<DaemonInfo> DaemonClient::Impl::Info() {
  std::lock_guard<std::mutex> lock(mutex_);
  NIXQ_RETURN_IF_ERROR(EnsureConnected(main_));
  return main_.session->info();
}

absl::Status DaemonClient::Impl::PutRoots(Conversation& conversation,
                                          const std::vector<StorePath>& paths) {
  return conversation.Pipeline(
      paths.size(),
      [&](size_t i) { conversation.Put(Operation::kAddTempRoot, paths[i]); },
      [&](size_t) { return conversation.wire().ReadUint().status(); });
}

absl::Status DaemonClient::Impl::AddTempRoots(
    const std::vector<StorePath>& paths) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<StorePath> added;
  for (const StorePath& path : paths) {
    if (!temp_roots_.contains(path)) added.push_back(path);
  }
  if (temp_roots_.size() + added.size() > kMaxTempRoots) {
    return absl::ResourceExhaustedError("too many temporary roots");
  }
  // Even with nothing to add: the connection that had them may be gone.
  NIXQ_RETURN_IF_ERROR(CallOver(main_, [&](Conversation& conversation) {
    return PutRoots(conversation, added);
  }));
  temp_roots_.insert(added.begin(), added.end());
  return absl::OkStatus();
}

void DaemonClient::Impl::DropTempRoots() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (temp_roots_.empty()) return;
  temp_roots_.clear();
  // The protocol has no other way: the worker at the other end holds them
  // until it ends.
  main_.usable = false;
  main_.session.reset();
}

DaemonClient::DaemonClient(DaemonClientOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}

DaemonClient::~DaemonClient() = default;

absl::StatusOr<DaemonInfo> DaemonClient::Info() { return impl_->Info(); }

void DaemonClient::Stop() { impl_->Stop(); }

absl::StatusOr<std::vector<std::optional<PathInfo>>>
DaemonClient::QueryPathInfos(const std::vector<StorePath>& paths) {
  std::vector<std::optional<PathInfo>> infos;
  NIXQ_RETURN_IF_ERROR(impl_->Call([&](Conversation& conversation) {
    infos.clear();
    const absl::Status status = conversation.Pipeline(
        paths.size(),
        [&](size_t i) {
          conversation.Put(Operation::kQueryPathInfo, paths[i]);
        },
        [&](size_t i) -> absl::Status {
          NIXQ_ASSIGN_OR_RETURN(infos.emplace_back(),
                                conversation.ReadPathInfo(paths[i]));
          return absl::OkStatus();
        });
    // The daemon is there and answers: it is one of the paths that it has
    // trouble with.
    return absl::IsUnknown(status) ? BlamePath(status) : status;
  }));
  return infos;
}

absl::StatusOr<std::map<std::string, std::optional<StorePath>>>
DaemonClient::QueryDerivationOutputs(const StorePath& derivation) {
  if (!derivation.IsDerivation()) {
    return absl::InvalidArgumentError(derivation.base_name() +
                                      " is not a derivation");
  }
  std::map<std::string, std::optional<StorePath>> outputs;
  bool valid = false;
  absl::Status status = impl_->Call([&](Conversation& conversation) {
    outputs.clear();
    conversation.Put(Operation::kIsValidPath, derivation);
    NIXQ_RETURN_IF_ERROR(conversation.Ask([&]() -> absl::Status {
      NIXQ_ASSIGN_OR_RETURN(valid, conversation.wire().ReadBool());
      return absl::OkStatus();
    }));
    if (!valid) return absl::OkStatus();
    conversation.Put(Operation::kQueryDerivationOutputMap, derivation);
    return conversation.Ask([&]() -> absl::Status {
      NIXQ_ASSIGN_OR_RETURN(const size_t count,
                            conversation.wire().ReadCount(kMaxOutputs));
      for (size_t i = 0; i < count; ++i) {
        NIXQ_ASSIGN_OR_RETURN(const std::string name,
                              conversation.wire().ReadString());
        NIXQ_ASSIGN_OR_RETURN(outputs[name], conversation.ReadOptionalPath());
      }
      return absl::OkStatus();
    });
  });
  if (!status.ok()) return status;
  if (!valid) {
    return absl::NotFoundError(derivation.base_name() + " is not in the store");
  }
  return outputs;
}

absl::Status DaemonClient::Impl::AddSignatures(
    const std::vector<std::pair<StorePath, std::vector<std::string>>>&
        signatures) {
  std::vector<StorePath> paths;
  for (const auto& [path, texts] : signatures) {
    for (const std::string& text : texts) {
      NIXQ_RETURN_IF_ERROR(CheckSignature(text));
    }
    paths.push_back(path);
  }
  if (paths.empty()) return absl::OkStatus();
  absl::Status status = CallForSigning([&](Conversation& conversation) {
    // The worker of Nix 2.8 crashes on a path that is not valid.
    std::set<StorePath> valid;
    for (size_t begin = 0; begin < paths.size(); begin += kPathsPerRequest) {
      const size_t end = std::min(paths.size(), begin + kPathsPerRequest);
      conversation.Put(Operation::kQueryValidPaths);
      conversation.wire().PutUint(end - begin);
      for (size_t i = begin; i < end; ++i) {
        conversation.wire().PutString(options_.store_dir.Print(paths[i]));
      }
      conversation.wire().PutUint(0);  // do not substitute
      NIXQ_RETURN_IF_ERROR(conversation.Ask([&]() -> absl::Status {
        NIXQ_ASSIGN_OR_RETURN(auto some, conversation.ReadPaths(end - begin));
        valid.insert(some.begin(), some.end());
        return absl::OkStatus();
      }));
    }
    std::vector<size_t> todo;
    for (size_t i = 0; i < paths.size(); ++i) {
      if (valid.contains(paths[i])) todo.push_back(i);
    }
    return conversation.Pipeline(
        todo.size(),
        [&](size_t i) {
          const auto& [path, texts] = signatures[todo[i]];
          conversation.Put(Operation::kAddSignatures, path);
          conversation.wire().PutStrings(texts);
        },
        [&](size_t) { return conversation.wire().ReadUint().status(); });
  });
  if (!status.ok() &&
      std::string(status.message()).find(kNotPrivileged) != std::string::npos) {
    return absl::PermissionDeniedError(status.message());
  }
  return status;
}

absl::Status DaemonClient::AddSignatures(
    const std::vector<std::pair<StorePath, std::vector<std::string>>>&
        signatures) {
  return impl_->AddSignatures(signatures);
}

absl::Status DaemonClient::AddTempRoots(const std::vector<StorePath>& paths) {
  return impl_->AddTempRoots(paths);
}

void DaemonClient::DropTempRoots() { impl_->DropTempRoots(); }

absl::StatusOr<std::vector<StorePath>> DaemonClient::QueryAllValidPaths() {
  std::vector<StorePath> paths;
  NIXQ_RETURN_IF_ERROR(impl_->Call([&](Conversation& conversation) {
    conversation.Put(Operation::kQueryAllValidPaths);
    return conversation.Ask([&]() -> absl::Status {
      NIXQ_ASSIGN_OR_RETURN(paths, conversation.ReadPaths(kMaxPaths));
      return absl::OkStatus();
    });
  }));
  return paths;
}

}  // namespace nixq
