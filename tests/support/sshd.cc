#include "tests/support/sshd.h"

#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "storage/base/cancel.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

constexpr int kPortTries = 20;
constexpr int kTryPauseMs = 10;
constexpr int kTries = 6000;
// The shell ends it when our end of the pipe closes, however we end.
constexpr char kRunSshd[] =
    "{ \"$0\" -D -e -f \"$1\" 2>\"$2\"; echo ended >>\"$2\"; } & "
    "cat >/dev/null; kill 0";
constexpr size_t kMaxLogBytes = 1 << 20;

absl::Status MakeKey(const std::string& file) {
  const Cancellation never;
  SubprocessOptions run;
  run.argv = {"ssh-keygen", "-q", "-t",   "ed25519", "-N",
              "",           "-C", "test", "-f",      file};
  run.environment = {"PATH=/usr/local/bin:/usr/bin:/bin"};
  NIXQ_ASSIGN_OR_RETURN(const SubprocessResult result,
                        RunSubprocess(run, never));
  if (result.exit_code == 0) return absl::OkStatus();
  return absl::InternalError("ssh-keygen: " + result.standard_error);
}

absl::StatusOr<int> FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) !=
          0) {
    return ErrnoError(errno, "find a free port");
  }
  return ntohs(address.sin_port);
}

std::string ReadAll(const std::string& file) {
  return ReadFile(file, kMaxLogBytes).value_or("");
}

bool IsAlive(int pid) {
  const std::string stat = ReadAll(absl::StrFormat("/proc/%d/stat", pid));
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.size() > name_end + 2 &&
         stat[name_end + 2] != 'Z';
}

std::string FindSshd() {
  for (const char* file :
       {"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd",
        "/run/current-system/sw/bin/sshd"}) {
    if (access(file, X_OK) == 0) return file;
  }
  return "";
}

}  // namespace

std::vector<int> DescendantsOf(int pid) {
  std::multimap<int, int> children;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc", error)) {
    const auto number = ParseUint(entry.path().filename().string());
    if (!number.has_value()) continue;
    const std::string stat = ReadAll(entry.path().string() + "/stat");
    // "pid (name) state parent ...", and the name may have anything in it.
    const size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos) continue;
    const auto words = SplitWords(std::string_view(stat).substr(name_end + 1));
    const auto parent =
        words.size() > 1 ? ParseUint(words[1]) : std::optional<uint64_t>();
    if (parent) {
      children.emplace(static_cast<int>(*parent), static_cast<int>(*number));
    }
  }
  std::vector<int> found;
  std::vector<int> parents = {pid};
  while (!parents.empty()) {
    const auto [begin, end] = children.equal_range(parents.back());
    parents.pop_back();
    for (auto it = begin; it != end; ++it) {
      found.push_back(it->second);
      parents.push_back(it->second);
    }
  }
  return found;
}

void KillAll(const std::vector<int>& pids) {
  for (int pid : pids) kill(pid, SIGKILL);
  for (int pid : pids) {
    for (int i = 0; IsAlive(pid) && i < kTries; ++i) {
      poll(nullptr, 0, kTryPauseMs);
    }
  }
}

absl::StatusOr<std::unique_ptr<Sshd>> Sshd::Start(
    const std::string& directory,
    const std::vector<std::string>& session_environment) {
  if (FindSshd().empty()) return absl::NotFoundError("no sshd");
  auto sshd = std::unique_ptr<Sshd>(new Sshd());
  sshd->directory_ = directory;
  sshd->session_environment_ = Join(session_environment, " ");
  const passwd* user = getpwuid(geteuid());
  if (user == nullptr) return absl::InternalError("we have no user name");
  sshd->user_ = user->pw_name;
  NIXQ_RETURN_IF_ERROR(MakeDirectories(directory, 0700));
  // Where sshd, when root, locks itself in; its service would make it.
  if (geteuid() == 0) NIXQ_RETURN_IF_ERROR(MakeDirectories("/run/sshd", 0755));
  NIXQ_RETURN_IF_ERROR(sshd->MakeKeys());
  absl::Status started;
  for (int i = 0; i < kPortTries; ++i) {
    NIXQ_ASSIGN_OR_RETURN(sshd->port_, FreePort());
    started = sshd->Launch();
    if (started.ok()) return sshd;
  }
  return started;
}

Sshd::~Sshd() { Stop(); }

absl::Status Sshd::MakeKeys() {
  for (const char* name : {"host_key", "client_key", "stranger"}) {
    NIXQ_RETURN_IF_ERROR(MakeKey(directory_ + "/" + name));
  }
  return WriteFileAtomically(directory_ + "/authorized_keys",
                             ReadAll(key_file() + ".pub"), 0600);
}

absl::Status Sshd::WriteConfiguration() {
  const std::string host = absl::StrFormat("[127.0.0.1]:%d ", port_);
  NIXQ_RETURN_IF_ERROR(WriteFileAtomically(
      known_hosts_file(), host + ReadAll(directory_ + "/host_key.pub"), 0600));
  NIXQ_RETURN_IF_ERROR(
      WriteFileAtomically(wrong_known_hosts_file(),
                          host + ReadAll(strangers_key_file() + ".pub"), 0600));
  std::string lines = absl::StrFormat(
      "Port %d\nListenAddress 127.0.0.1\nHostKey %s/host_key\n"
      "AuthorizedKeysFile %s/authorized_keys\nPidFile none\n"
      "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
      "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
      "PrintMotd no\nMaxStartups 100\nLogLevel VERBOSE\n",
      port_, directory_, directory_);
  if (!session_environment_.empty()) {
    lines += "SetEnv " + session_environment_ + "\n";
  }
  return WriteFileAtomically(directory_ + "/sshd_config", lines + more_, 0600);
}

absl::Status Sshd::Launch() {
  NIXQ_RETURN_IF_ERROR(WriteConfiguration());
  const std::string log = directory_ + "/sshd.log";
  unlink(log.c_str());
  NIXQ_ASSIGN_OR_RETURN(
      PipedChild child,
      PipedChild::Start({"/bin/sh", "-c", kRunSshd, FindSshd(),
                         directory_ + "/sshd_config", log},
                        {"PATH=/usr/local/bin:/usr/bin:/bin"}));
  sshd_ = std::move(child);
  for (int i = 0; i < kTries; ++i) {
    const std::string said = ReadAll(log);
    if (said.find("Server listening") != std::string::npos) {
      return absl::OkStatus();
    }
    if (said.find("ended") != std::string::npos) break;
    poll(nullptr, 0, kTryPauseMs);
  }
  return absl::UnavailableError("sshd does not listen: " + ReadAll(log));
}

void Sshd::Stop() {
  if (!sshd_.has_value()) return;
  // Sessions have sessions of their own and outlive it.
  const std::vector<int> sessions = DescendantsOf(sshd_->pid());
  sshd_.reset();
  KillAll(sessions);
}

absl::Status Sshd::Restart() {
  Stop();
  return Launch();
}

// sshd itself stays in its shell's group, and sessions leave it.
std::vector<int> Sshd::Processes() const {
  std::vector<int> sessions;
  if (!sshd_.has_value()) return sessions;
  for (int pid : DescendantsOf(sshd_->pid())) {
    if (getpgid(pid) != sshd_->pid()) sessions.push_back(pid);
  }
  return sessions;
}

void Sshd::KillSessions() { KillAll(Processes()); }

std::string Sshd::Url(const std::string& scheme) const {
  return absl::StrFormat("%s://%s@127.0.0.1:%d", scheme, user_, port_);
}

std::string Sshd::Log() const { return ReadAll(directory_ + "/sshd.log"); }

}  // namespace nixq
