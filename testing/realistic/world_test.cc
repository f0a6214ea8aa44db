// Servers that use what the system has: files, other programs, the network.

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/realistic/survives.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

// A folder of the run's own: others are made at the same time.
class Folder {
 public:
  Folder() {
    // Bazel's.
    path_ = absl::StrCat(std::getenv("TEST_TMPDIR"), "/XXXXXX");
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  std::string File(std::string_view name) const {
    return absl::StrCat(path_, "/", name);
  }

 private:
  std::string path_;
};

// --- a file's lock ---

class CounterFileServer : public AbstractServer {
 public:
  CounterFileServer() { DefineMessageHandler("add", &CounterFileServer::Add); }

 private:
  absl::StatusOr<int> Add(int number) {
    const FileDescriptor file = FileDescriptor::Opened(open(
        folder_.File("counter").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (flock(file.get(), LOCK_EX) != 0) {
      return absl::ErrnoToStatus(errno, "the counter cannot be locked");
    }
    std::array<char, 20> text{};
    int value = 0;
    if (read(file.get(), text.data(), text.size() - 1) > 0 &&
        !absl::SimpleAtoi(text.data(), &value)) {
      return absl::DataLossError("the counter's file has no number");
    }
    value += number;
    const std::string written = absl::StrCat(value);
    if (lseek(file.get(), 0, SEEK_SET) != 0 ||
        write(file.get(), written.data(), written.size()) < 0) {
      return absl::ErrnoToStatus(errno, "the counter cannot be written");
    }
    return value;
  }

  const Folder folder_;
};

TEST(World, AFilesLock) {
  Survives<CounterFileServer>([](CounterFileServer& server) {
    const auto add = [&] {
      EXPECT_THAT(CallServer(server, "add", 40), IsOk());
    };
    RunAtOnce(add, add);
    EXPECT_THAT(CallServer(server, "add", 4), RepliesWith("84"));
  });
}

// --- files ---

class StoreServer : public AbstractServer {
 public:
  StoreServer() {
    DefineMessageHandler("put", &StoreServer::Put);
    DefineMessageHandler("get", &StoreServer::Get);
    DefineMessageHandler("count", &StoreServer::Count);
  }

 private:
  absl::StatusOr<bool> Put(const std::string& key, const std::string& value) {
    const absl::MutexLock lock(&mutex_);
    const std::string draft = folder_.File("draft");
    {
      std::ofstream file(draft);
      file << value << '\n';
      file.flush();
      if (!file.good()) return absl::UnavailableError("it cannot be written");
    }
    if (std::rename(draft.c_str(), folder_.File(key).c_str()) != 0) {
      return absl::ErrnoToStatus(errno, "it cannot be put in its place");
    }
    return true;
  }
  absl::StatusOr<std::string> Get(const std::string& key) {
    std::ifstream file(folder_.File(key));
    std::string value;
    if (!std::getline(file, value)) return absl::NotFoundError(key);
    return value;
  }
  absl::StatusOr<int> Count() {
    int files = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder_.File(""))) {
      files += entry.is_regular_file() ? 1 : 0;
    }
    return files;
  }

  const Folder folder_;
  absl::Mutex mutex_;  // The draft's.
};

TEST(World, Files) {
  Survives<StoreServer>([](StoreServer& server) {
    RunAtOnce(
        [&] { EXPECT_THAT(CallServer(server, "put", "a", "one"), IsOk()); },
        [&] { EXPECT_THAT(CallServer(server, "put", "b", "two"), IsOk()); });
    RunAtOnce(
        [&] { EXPECT_THAT(CallServer(server, "put", "b", "three"), IsOk()); },
        [&] {
          EXPECT_THAT(CallServer(server, "get", "a"), RepliesWith("one"));
        });
    EXPECT_THAT(CallServer(server, "get", "b"), RepliesWith("three"));
    EXPECT_THAT(CallServer(server, "count"), RepliesWith("2"));
  });
}

// --- chance ---

class TokenServer : public AbstractServer {
 public:
  TokenServer() { DefineMessageHandler("token", &TokenServer::Token); }

 private:
  absl::StatusOr<std::string> Token() {
    std::random_device device;
    std::mt19937_64 generator(device());
    return absl::StrCat(absl::Hex(generator()), absl::Hex(device()));
  }
};

TEST(World, RandomDevice) {
  Survives<TokenServer>([](TokenServer& server) {
    RunAtOnce([&] { EXPECT_THAT(CallServer(server, "token"), IsOk()); },
              [&] { EXPECT_THAT(CallServer(server, "token"), IsOk()); });
  });
}

}  // namespace
}  // namespace ward::testing
