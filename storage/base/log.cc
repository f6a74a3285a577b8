#include "storage/base/log.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_format.h"

namespace nixq {
namespace {

constexpr size_t kMaxLineBytes = 8192;

std::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// The priorities of syslog(3), as systemd reads them at the start of a line.
std::string_view SyslogPrefix(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "<7>";
    case LogLevel::kInfo:
      return "<6>";
    case LogLevel::kWarning:
      return "<4>";
    case LogLevel::kError:
      return "<3>";
  }
  return "<3>";
}

bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

bool NeedsQuotes(std::string_view value) {
  if (value.empty()) return true;
  for (const char c : value) {
    if (IsControl(c) || c == ' ' || c == '"' || c == '\\' || c == '=') {
      return true;
    }
  }
  return false;
}

void AppendValue(std::string_view value, std::string* line) {
  if (!NeedsQuotes(value)) {
    *line += value;
    return;
  }
  *line += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      *line += '\\';
      *line += c;
    } else if (c == '\n') {
      *line += "\\n";
    } else if (c == '\t') {
      *line += "\\t";
    } else if (IsControl(c)) {
      *line += absl::StrFormat("\\x%02x", static_cast<unsigned char>(c));
    } else {
      *line += c;
    }
    if (line->size() > kMaxLineBytes) return;  // will be cut anyway
  }
  *line += '"';
}

class Nothing : public Log {
 public:
  void Write(LogLevel, std::string_view,
             std::initializer_list<LogField>) override {}
};

}  // namespace

std::optional<LogLevel> LogLevelFromName(std::string_view name) {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo,
                               LogLevel::kWarning, LogLevel::kError}) {
    if (name == NameOf(level)) return level;
  }
  return std::nullopt;
}

LogField::LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
LogField::LogField(std::string_view k, const char* v) : key(k), value(v) {}
LogField::LogField(std::string_view k, const std::string& v)
    : key(k), value(v) {}
LogField::LogField(std::string_view k, absl::Duration v)
    : key(k), value(std::to_string(absl::ToInt64Milliseconds(v))) {}

void FdLog::Write(LogLevel level, std::string_view event,
                  std::initializer_list<LogField> fields) {
  if (level < threshold_) return;
  std::string line;
  if (syslog_prefix_) line += SyslogPrefix(level);
  line += NameOf(level);
  line += ' ';
  line += event;
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    AppendValue(field.value, &line);
  }
  constexpr std::string_view kCut = "...";
  if (line.size() >= kMaxLineBytes) {
    line.resize(kMaxLineBytes - kCut.size() - 1);
    line += kCut;
  }
  line += '\n';
  // A log that cannot be written has nowhere to complain.
  while (write(fd_, line.data(), line.size()) < 0 && errno == EINTR) {
  }
}

Log& NullLog() {
  static Nothing nothing;
  return nothing;
}

}  // namespace nixq
