// The log: one line for one event, on standard error.
//
//   level event key=value key="value with spaces"
//
// e.g. `info sent path=/nix/store/...-hello target=nas bytes=5120 ms=12`.
// Under systemd each line starts with its syslog priority ("<6>"), so that
// journalctl -p works. Never given a secret: callers name files, not contents.
#pragma once

#include <concepts>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace nixq {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// "debug", "info", "warning", "error"; nullopt for anything else.
std::optional<LogLevel> LogLevelFromName(std::string_view name);

// One key=value of a line; converts from what lines are made of.
struct LogField {
  LogField(std::string_view k, std::string_view v);
  LogField(std::string_view k, const char* v);
  LogField(std::string_view k, const std::string& v);
  // A template, because which types are int64_t and size_t differs.
  template <std::integral Int>
  LogField(std::string_view k, Int v) : key(k), value(std::to_string(v)) {}
  LogField(std::string_view k, absl::Duration v);  // whole milliseconds

  std::string_view key;
  std::string value;
};

// Where lines go. Thread-safe: each line is one write(2). Control characters
// in values are escaped, lines are cut at 8 KiB.
class Log {
 public:
  virtual ~Log() = default;
  virtual void Write(LogLevel level, std::string_view event,
                     std::initializer_list<LogField> fields) = 0;

  void Debug(std::string_view event, std::initializer_list<LogField> fields) {
    Write(LogLevel::kDebug, event, fields);
  }
  void Info(std::string_view event, std::initializer_list<LogField> fields) {
    Write(LogLevel::kInfo, event, fields);
  }
  void Warning(std::string_view event, std::initializer_list<LogField> fields) {
    Write(LogLevel::kWarning, event, fields);
  }
  void Error(std::string_view event, std::initializer_list<LogField> fields) {
    Write(LogLevel::kError, event, fields);
  }
};

// Writes lines of at least `threshold` to a descriptor that it does not own.
class FdLog : public Log {
 public:
  FdLog(int fd, LogLevel threshold, bool syslog_prefix)
      : fd_(fd), threshold_(threshold), syslog_prefix_(syslog_prefix) {}
  void Write(LogLevel level, std::string_view event,
             std::initializer_list<LogField> fields) override;
  // Not thread-safe against Write; call it between events (SIGHUP).
  void set_threshold(LogLevel threshold) { threshold_ = threshold; }

 private:
  int fd_;
  LogLevel threshold_;
  bool syslog_prefix_;
};

// Drops everything.
Log& NullLog();

}  // namespace nixq
