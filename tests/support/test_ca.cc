#include "tests/support/test_ca.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "storage/base/io.h"
#include "storage/base/status.h"
#include "storage/base/subprocess.h"

namespace nixq {
namespace {

absl::Status OpenSsl(const std::vector<std::string>& arguments) {
  SubprocessOptions options;
  options.argv = {"openssl"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.environment = {"PATH=/usr/bin:/bin"};
  Cancellation never;
  NIXQ_ASSIGN_OR_RETURN(const SubprocessResult result,
                        RunSubprocess(options, never));
  if (result.exit_code == 0) return absl::OkStatus();
  return absl::UnknownError(result.standard_error);
}

}  // namespace

absl::StatusOr<TestCa> TestCa::Create(const std::string& directory) {
  TestCa ca(directory);
  NIXQ_RETURN_IF_ERROR(MakeDirectories(directory, 0755));
  ca.ca_ = {directory + "/ca.crt", directory + "/ca.key"};
  NIXQ_RETURN_IF_ERROR(
      OpenSsl({"req", "-x509", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
               "/CN=Test CA", "-keyout", ca.ca_.key_file, "-out",
               ca.ca_.certificate_file}));
  return ca;
}

absl::StatusOr<TestCertificate> TestCa::Issue(const std::string& name) const {
  const std::string base = directory_ + "/" + name;
  const TestCertificate issued = {base + ".crt", base + ".key"};
  NIXQ_RETURN_IF_ERROR(
      OpenSsl({"req", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" + name,
               "-keyout", issued.key_file, "-out", base + ".csr"}));
  NIXQ_RETURN_IF_ERROR(WriteFileAtomically(
      base + ".ext", absl::StrFormat("subjectAltName=DNS:%s\n", name), 0644));
  NIXQ_RETURN_IF_ERROR(OpenSsl(
      {"x509", "-req", "-in", base + ".csr", "-CA", ca_.certificate_file,
       "-CAkey", ca_.key_file, "-CAcreateserial", "-days", "2", "-extfile",
       base + ".ext", "-out", issued.certificate_file}));
  return issued;
}

}  // namespace nixq
