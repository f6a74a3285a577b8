// What must not be in a message, and messages without it.
//
// Servers quote request headers in their error pages, and libcurl quotes
// URLs: both end up in the log, in the database and on a person's screen.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace nixq {

// Immutable once filled; then any thread may use it.
class Secrets {
 public:
  // A word that is a secret as it is. Up to three bytes are none.
  void Add(std::string_view secret);
  // A password, and both as the header of basic authentication has them.
  void AddLogin(std::string_view user, std::string_view password);
  // All passwords in the text of a netrc file.
  void AddNetrc(std::string_view text);
  // The user and password in a URL, as they are and percent-decoded.
  void AddUserOf(std::string_view url);

  // `text` with "***" in the place of each secret, and of the user and
  // password in any URL.
  std::string RemovedFrom(std::string_view text) const;
  // The same status, with such a message.
  absl::Status RemovedFrom(const absl::Status& status) const;

 private:
  std::vector<std::string> words_;  // longest first
};

}  // namespace nixq
