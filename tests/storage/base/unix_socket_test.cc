#include "storage/base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/temporary_directory.h"

namespace nixq {
namespace {

// What every socket of ours is, however it came to be.
void ExpectCareful(const UniqueFd& fd) {
  EXPECT_TRUE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(fcntl(fd.get(), F_GETFL) & O_NONBLOCK);
}

absl::StatusOr<UniqueFd> Listen(const std::string& path) {
  absl::StatusOr<UniqueFd> fd = BindUnixSocket(path, SOCK_STREAM);
  if (fd.ok() && listen(fd->get(), 1) != 0) ADD_FAILURE();
  return fd;
}

// A path that fits in no socket address.
std::string LongPath(const TemporaryDirectory& directory) {
  const std::string parent = directory / std::string(200, 'd');
  EXPECT_EQ(mkdir(parent.c_str(), 0755), 0);
  return parent + "/socket";
}

void ExpectStreamWorks(const std::string& path) {
  absl::StatusOr<UniqueFd> server = Listen(path);
  ASSERT_TRUE(server.ok()) << server.status();
  ExpectCareful(*server);
  EXPECT_TRUE(absl::IsUnavailable(AcceptUnixSocket(server->get()).status()));
  absl::StatusOr<UniqueFd> client = TryConnectUnixSocket(path, SOCK_STREAM);
  ASSERT_TRUE(client.ok()) << client.status();
  ExpectCareful(*client);
  absl::StatusOr<UniqueFd> accepted = AcceptUnixSocket(server->get());
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  ExpectCareful(*accepted);
  ASSERT_EQ(send(client->get(), "x", 1, 0), 1);
  pollfd readable = {accepted->get(), POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, -1), 1);
}

TEST(UnixSocketTest, Streams) {
  const TemporaryDirectory directory;
  ExpectStreamWorks(directory / "socket");
}

TEST(UnixSocketTest, Datagrams) {
  const TemporaryDirectory directory;
  const std::string path = directory / "socket";
  absl::StatusOr<UniqueFd> server = BindUnixSocket(path, SOCK_DGRAM);
  ASSERT_TRUE(server.ok()) << server.status();
  ExpectCareful(*server);
  absl::StatusOr<UniqueFd> client = TryConnectUnixSocket(path, SOCK_DGRAM);
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_EQ(send(client->get(), "x", 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(recv(server->get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(UnixSocketTest, APathBeyondTheAddress) {
  const TemporaryDirectory directory;
  const std::string path = LongPath(directory);
#ifdef __linux__
  ExpectStreamWorks(path);
  EXPECT_TRUE(
      ConnectUnixSocket(path, absl::Seconds(1), Cancellation()).status() !=
      absl::OkStatus());  // the server is gone
  EXPECT_TRUE(absl::IsInvalidArgument(
      BindUnixSocket(directory / std::string(120, 'n'), SOCK_DGRAM).status()));
#else
  EXPECT_TRUE(
      absl::IsInvalidArgument(BindUnixSocket(path, SOCK_DGRAM).status()));
#endif
}

TEST(UnixSocketTest, ADeadSocketIsReplacedAndNothingElseIs) {
  const TemporaryDirectory directory;
  const std::string path = directory / "socket";
  ASSERT_TRUE(Listen(path).ok());  // and gone; its name stays
  EXPECT_TRUE(
      absl::IsUnavailable(TryConnectUnixSocket(path, SOCK_STREAM).status()));
  absl::StatusOr<UniqueFd> again = Listen(path);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(TryConnectUnixSocket(path, SOCK_STREAM).ok());

  const std::string file = directory / "file";
  std::ofstream(file) << "precious";
  EXPECT_TRUE(
      absl::IsFailedPrecondition(BindUnixSocket(file, SOCK_STREAM).status()));
  EXPECT_EQ(access(file.c_str(), F_OK), 0);
}

TEST(UnixSocketTest, TheGroupMayConnectAndNobodyElse) {
  const TemporaryDirectory directory;
  const std::string path = directory / "socket";
  ASSERT_TRUE(BindUnixSocket(path, SOCK_DGRAM).ok());
  struct stat info;
  ASSERT_EQ(lstat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0660u);
}

TEST(UnixSocketTest, NobodyThere) {
  const TemporaryDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(
      TryConnectUnixSocket(directory / "none", SOCK_DGRAM).status()));
}

}  // namespace
}  // namespace nixq
