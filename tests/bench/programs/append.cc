// The cheapest program that keeps anything: appends 4 KiB to a file and waits
// until the disk has it.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

int main() {
  static const char page[4096] = {};
  const char* file = std::getenv("NIXQ_BENCH_FILE");
  if (file == nullptr) return 2;
  const int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (fd < 0 || write(fd, page, sizeof(page)) != sizeof(page)) return 1;
#ifdef __APPLE__
  return fcntl(fd, F_FULLFSYNC) == 0 ? 0 : 1;
#else
  return fdatasync(fd) == 0 ? 0 : 1;
#endif
}
