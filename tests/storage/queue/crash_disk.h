// A disk under SQLite that remembers every write and flush, so that a test
// can see what a power cut after any of them would have left.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace nixq {

// While it lives it is SQLite's default VFS and passes all on to the real one.
// What is in files when they are opened first counts as flushed.
class CrashDisk {
 public:
  struct Operation {
    enum class Kind { kWrite, kTruncate, kFlush, kMark } kind;
    std::string file;
    int64_t offset = 0;  // of kTruncate: the size; of kMark: the test's number
    std::string bytes;
  };

  // With `honest` false flushes do nothing, and say that they have.
  explicit CrashDisk(bool honest)
      : honest_(honest), real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
    vfs_.zName = "crash-disk";
    vfs_.pAppData = this;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = &Open;
    vfs_.pNext = nullptr;
    EXPECT_EQ(sqlite3_vfs_register(&vfs_, 1), SQLITE_OK);
  }
  CrashDisk(const CrashDisk&) = delete;
  CrashDisk& operator=(const CrashDisk&) = delete;
  ~CrashDisk() { Stop(); }

  // From now on files are opened on the real disk.
  void Stop() { sqlite3_vfs_unregister(&vfs_); }

  void Mark(int64_t number) {
    log_.push_back({Operation::Kind::kMark, "", number, ""});
  }
  const std::vector<Operation>& log() const { return log_; }

  // What is on the disk when the power goes after the first `cut` operations:
  // all that was flushed, and of the rest each 512 bytes or not, as `random`
  // has it. `lost` counts writes that are not there whole.
  std::map<std::string, std::string> After(size_t cut, std::mt19937& random,
                                           int* lost) const {
    std::map<std::string, std::string> disk = first_;
    std::map<std::string, std::vector<const Operation*>> pending;
    for (size_t i = 0; i < cut; ++i) {
      const Operation& operation = log_[i];
      if (operation.kind == Operation::Kind::kMark) continue;
      if (operation.kind != Operation::Kind::kFlush) {
        pending[operation.file].push_back(&operation);
        continue;
      }
      for (const Operation* done : pending[operation.file]) {
        Apply(*done, &disk[operation.file]);
      }
      pending[operation.file].clear();
    }
    // Some cuts lose all, some nothing, most a part.
    const unsigned kept_percent = random() % 5 * 25;
    for (const auto& [file, operations] : pending) {
      for (const Operation* operation : operations) {
        *lost += ApplyPartly(*operation, kept_percent, random, &disk[file]);
      }
    }
    return disk;
  }

 private:
  struct File {
    sqlite3_file base;
    CrashDisk* disk;
    const std::string* name;  // a key of first_
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };
  static File* Of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }

  static void Apply(const Operation& operation, std::string* content) {
    if (operation.kind == Operation::Kind::kTruncate) {
      content->resize(operation.offset);
      return;
    }
    size_t end = operation.offset + operation.bytes.size();
    if (content->size() < end) content->resize(end);
    content->replace(operation.offset, operation.bytes.size(), operation.bytes);
  }

  // 1 if some of it is lost. (A truncation is a piece, too.)
  static int ApplyPartly(const Operation& operation, unsigned kept_percent,
                         std::mt19937& random, std::string* content) {
    int lost = 0;
    constexpr size_t kSector = 512;
    for (size_t at = 0; at == 0 || at < operation.bytes.size(); at += kSector) {
      if (random() % 100 >= kept_percent) {
        lost = 1;
        continue;
      }
      Operation sector = operation;
      sector.offset += static_cast<int64_t>(at);
      sector.bytes = operation.bytes.substr(at, kSector);
      Apply(sector, content);
    }
    return lost;
  }

  static int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file,
                  int flags, int* out_flags) {
    auto* disk = static_cast<CrashDisk*>(vfs->pAppData);
    File* mine = Of(file);
    mine->base.pMethods = nullptr;
    mine->disk = disk;
    int code =
        disk->real_->xOpen(disk->real_, name, mine->real(), flags, out_flags);
    if (mine->real()->pMethods == nullptr) return code;
    mine->base.pMethods = &Methods();
    std::string key = name != nullptr ? name : "";
    key = key.substr(key.rfind('/') + 1);
    auto [entry, is_new] = disk->first_.try_emplace(key);
    mine->name = &entry->first;
    if (is_new && name != nullptr) {
      std::ifstream content(name, std::ios::binary);
      entry->second.assign(std::istreambuf_iterator<char>(content), {});
    }
    return code;
  }

  static int Write(sqlite3_file* file, const void* bytes, int size,
                   sqlite3_int64 offset) {
    File* mine = Of(file);
    mine->disk->log_.push_back(
        {Operation::Kind::kWrite, *mine->name, offset,
         std::string(static_cast<const char*>(bytes), size)});
    return mine->real()->pMethods->xWrite(mine->real(), bytes, size, offset);
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    File* mine = Of(file);
    mine->disk->log_.push_back(
        {Operation::Kind::kTruncate, *mine->name, size, ""});
    return mine->real()->pMethods->xTruncate(mine->real(), size);
  }
  // The real flush is left out: no power is cut here.
  static int Flush(sqlite3_file* file, int) {
    File* mine = Of(file);
    if (mine->disk->honest_) {
      mine->disk->log_.push_back({Operation::Kind::kFlush, *mine->name, 0, ""});
    }
    return SQLITE_OK;
  }

  // Calls the method of the real file.
  template <auto kMethod, typename... Arguments>
  static auto Pass(sqlite3_file* file, Arguments... arguments) {
    sqlite3_file* real = Of(file)->real();
    return (real->pMethods->*kMethod)(real, arguments...);
  }

  static const sqlite3_io_methods& Methods() {
    using M = sqlite3_io_methods;
    static const sqlite3_io_methods kMethods = {
        .iVersion = 2,  // no memory mapping
        .xClose = &Pass<&M::xClose>,
        .xRead = &Pass<&M::xRead, void*, int, sqlite3_int64>,
        .xWrite = &Write,
        .xTruncate = &Truncate,
        .xSync = &Flush,
        .xFileSize = &Pass<&M::xFileSize, sqlite3_int64*>,
        .xLock = &Pass<&M::xLock, int>,
        .xUnlock = &Pass<&M::xUnlock, int>,
        .xCheckReservedLock = &Pass<&M::xCheckReservedLock, int*>,
        .xFileControl = &Pass<&M::xFileControl, int, void*>,
        .xSectorSize = &Pass<&M::xSectorSize>,
        .xDeviceCharacteristics = &Pass<&M::xDeviceCharacteristics>,
        .xShmMap = &Pass<&M::xShmMap, int, int, int, void volatile**>,
        .xShmLock = &Pass<&M::xShmLock, int, int, int>,
        .xShmBarrier = &Pass<&M::xShmBarrier>,
        .xShmUnmap = &Pass<&M::xShmUnmap, int>,
    };
    return kMethods;
  }

  bool honest_;
  sqlite3_vfs* real_;
  sqlite3_vfs vfs_;
  std::map<std::string, std::string> first_;
  std::vector<Operation> log_;
};

}  // namespace nixq
