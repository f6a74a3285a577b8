// A certificate authority of a test's own, by the openssl program.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "tests/support/temporary_directory.h"

namespace nixq {

struct TestCertificate {
  std::string certificate_file;
  std::string key_file;
};

class TestCa {
 public:
  // NOT_FOUND: openssl is not installed.
  static absl::StatusOr<TestCa> Create(const std::string& directory);

  const std::string& ca_file() const { return ca_.certificate_file; }
  // Signed by this CA for the host `name` (DNS), also usable by a client.
  absl::StatusOr<TestCertificate> Issue(const std::string& name) const;

 private:
  explicit TestCa(std::string directory) : directory_(std::move(directory)) {}

  std::string directory_;
  TestCertificate ca_;
};

}  // namespace nixq
