// Descriptors of files whose file system does not answer when they are closed:
// whoever may mount one (FUSE) can attach such to what he sends.

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

// A file system of one file (fuse(4), linux/fuse.h), whose close(2) takes as
// long as Hang says.
class HangingFiles {
 public:
  explicit HangingFiles(std::string directory)
      : directory_(std::move(directory)),
        device_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    const std::string options =
        absl::StrCat("fd=", device_.get(),
                     ",rootmode=40000,user_id=0,group_id=0,allow_other");
    is_mounted_ =
        device_.is_open() && mount("ward", directory_.c_str(), "fuse",
                                   MS_NOSUID | MS_NODEV, options.c_str()) == 0;
    if (is_mounted_) thread_ = std::thread([this] { Answer(); });
  }
  ~HangingFiles() {
    if (!is_mounted_) return;
    Hang(false);
    EXPECT_EQ(umount2(directory_.c_str(), MNT_DETACH), 0);
    thread_.join();
  }

  bool is_mounted() const { return is_mounted_; }

  FileDescriptor Open() const {
    return FileDescriptor(
        open(absl::StrCat(directory_, "/file").c_str(), O_RDONLY | O_CLOEXEC));
  }

  void Hang(bool hangs) {
    std::vector<uint64_t> held;
    {
      absl::MutexLock lock(&mutex_);
      hangs_ = hangs;
      if (!hangs) held.swap(held_);
    }
    for (const uint64_t request : held) Reply(request, 0, {});
  }

  // Until somebody waits for a file to be closed.
  bool AwaitHanging() {
    absl::MutexLock lock(&mutex_);
    const auto holds = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !held_.empty();
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&holds), kSurely);
  }

 private:
  static constexpr uint64_t kFile = 2;

  template <typename T>
  static std::string_view Bytes(const T& value) {
    return {reinterpret_cast<const char*>(&value), sizeof(value)};
  }

  static fuse_attr Attributes(uint64_t node) {
    fuse_attr attributes{};
    attributes.ino = node;
    attributes.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
    attributes.nlink = 1;
    return attributes;
  }

  void Reply(uint64_t request, int error, std::string_view body) const {
    fuse_out_header header{};
    header.len = static_cast<uint32_t>(sizeof(header) + body.size());
    header.error = -error;
    header.unique = request;
    const std::string all = absl::StrCat(Bytes(header), body);
    // An interrupted request wants none.
    (void)!write(device_.get(), all.data(), all.size());
  }

  void Answer() {
    std::vector<char> buffer(1 << 17);
    while (true) {
      const ssize_t size = read(device_.get(), buffer.data(), buffer.size());
      if (size < 0 && (errno == EINTR || errno == ENOENT)) continue;
      if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
      fuse_in_header header;
      std::memcpy(&header, buffer.data(), sizeof(header));
      AnswerOne(header);
    }
  }

  void AnswerOne(const fuse_in_header& asked) {
    switch (asked.opcode) {
      case FUSE_INIT: {
        fuse_init_out init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = 31;
        init.max_write = 4096;
        return Reply(asked.unique, 0, Bytes(init));
      }
      case FUSE_LOOKUP: {
        fuse_entry_out entry{};
        entry.nodeid = kFile;
        entry.attr = Attributes(kFile);
        return Reply(asked.unique, 0, Bytes(entry));
      }
      case FUSE_GETATTR: {
        fuse_attr_out attributes{};
        attributes.attr = Attributes(asked.nodeid);
        return Reply(asked.unique, 0, Bytes(attributes));
      }
      case FUSE_OPEN:
        return Reply(asked.unique, 0, Bytes(fuse_open_out{}));
      case FUSE_FLUSH: {
        absl::MutexLock lock(&mutex_);
        if (hangs_) {
          held_.push_back(asked.unique);
          return;
        }
        return Reply(asked.unique, 0, {});
      }
      case FUSE_RELEASE:
        return Reply(asked.unique, 0, {});
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return Reply(asked.unique, ENOSYS, {});
    }
  }

  const std::string directory_;
  const FileDescriptor device_;
  bool is_mounted_ = false;
  std::thread thread_;
  absl::Mutex mutex_;
  bool hangs_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<uint64_t> held_ ABSL_GUARDED_BY(mutex_);
};

// From half a message, whose time is over.
TEST(HangingFilesTest, KeepNobodyWaitingButWhoClosesThem) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(200);
  std::string directory = "/tmp/ward-test-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  {
    ServerOptions options;
    options.authentication_timeout = kTimeout;
    TestServer server(std::move(options));
    ASSERT_THAT(server.Start(), IsOk());
    HangingFiles files(directory);
    if (!files.is_mounted()) {
      rmdir(directory.c_str());
      GTEST_SKIP() << "needs root, and /dev/fuse";
    }
    const auto connect = [&server] {
      auto transport = Environment::Posix().Connect(server.socket_filename(),
                                                    absl::InfiniteFuture());
      EXPECT_THAT(transport, IsOk());
      return *std::move(transport);
    };
    const auto hostile = connect();
    {
      const FileDescriptor file = files.Open();
      ASSERT_TRUE(file.is_open());
      const int attached[] = {file.get()};
      ASSERT_THAT(hostile->Send("\x20", attached, absl::InfiniteFuture()),
                  IsOk());
    }
    files.Hang(true);
    ASSERT_TRUE(files.AwaitHanging());
    // Who is silent is told so, and who comes in pieces is heard.
    MessageChannel silent(connect());
    EXPECT_THAT(silent.Read(), FailsWith(reason::kTimedOut));
    MessageChannel late(connect());
    absl::SleepFor(kTimeout / 4);
    late.PresentPassword(server.password());
    ASSERT_THAT(late.Write("echo", "x"), IsOk());
    EXPECT_THAT(late.Read(), testing::RepliesWith("x"));
    files.Hang(false);
    EXPECT_THAT(server.Stop(), IsOk());
  }
  rmdir(directory.c_str());
}

}  // namespace
}  // namespace ward
