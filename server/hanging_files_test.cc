// Descriptors of files whose file system does not answer when they are closed:
// whoever may mount one (FUSE) can attach such to what he sends.

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/exec_main.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

// A file system of one file (fuse(4), linux/fuse.h), whose close(2) takes as
// long as Hang says, but on the main thread. Where this process is killed while
// it has such a file open itself, nobody answers it any more.
class HangingFiles {
 public:
  explicit HangingFiles(std::string directory)
      : directory_(std::move(directory)),
        device_(open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC)) {
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
    // The file system goes with the device, whoever has a file of it still.
    WriteAll(end_.write.get(), "x");
    thread_.join();
  }

  bool is_mounted() const { return is_mounted_; }

  std::string path() const { return absl::StrCat(directory_, "/file"); }

  FileDescriptor Open() const {
    return FileDescriptor(open(path().c_str(), O_RDONLY | O_CLOEXEC));
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

  // Until so many wait at the same time for a file to be closed.
  bool AwaitHanging(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto holds = [this, count]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return held_.size() >= count;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&holds), kSurely / 2);
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
    pollfd polled[] = {{end_.read.get(), POLLIN, 0},
                       {device_.get(), POLLIN, 0}};
    while (true) {
      (void)poll(polled, 2, -1);
      if (polled[0].revents != 0) return;
      const ssize_t size = read(device_.get(), buffer.data(), buffer.size());
      if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) {
        continue;
      }
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
        if (hangs_ && asked.pid != static_cast<uint32_t>(getpid())) {
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
  const Pipe end_ = MakePipe();
  bool is_mounted_ = false;
  std::thread thread_;
  absl::Mutex mutex_;
  bool hangs_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<uint64_t> held_ ABSL_GUARDED_BY(mutex_);
};

class HangingFilesTest : public ::testing::Test {
 protected:
  HangingFilesTest() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~HangingFilesTest() override {
    files_.reset();
    rmdir(directory_.c_str());
  }

  // With a thread of its own: a server is forked before. From now on what
  // others close hangs.
  bool Mount() {
    files_ = std::make_unique<HangingFiles>(directory_);
    if (!files_->is_mounted()) return false;
    files_->Hang(true);
    return true;
  }
  HangingFiles& files() { return *files_; }

  // Everybody's close(2) comes to its end.
  void StopHanging() { files_->Hang(false); }

  static std::unique_ptr<Transport> Connect(const std::string& path) {
    auto transport = Environment::Posix().Connect(path, absl::InfiniteFuture());
    EXPECT_THAT(transport, IsOk());
    return *std::move(transport);
  }

  // The beginning of a message, with the file so many times.
  std::unique_ptr<Transport> SendHalf(const std::string& path,
                                      size_t files) const {
    std::unique_ptr<Transport> peer = Connect(path);
    const FileDescriptor file = files_->Open();
    EXPECT_TRUE(file.is_open());
    EXPECT_THAT(peer->Send("\x20", std::vector<int>(files, file.get()),
                           absl::InfiniteFuture()),
                IsOk());
    return peer;
  }

  static std::vector<FileDescriptor> Attached(FileDescriptor file) {
    std::vector<FileDescriptor> attached;
    attached.push_back(std::move(file));
    return attached;
  }

  static constexpr const char* kNeeds = "needs root, and /dev/fuse";

 private:
  std::string directory_ = "/tmp/ward-test-XXXXXX";
  std::unique_ptr<HangingFiles> files_;
};

// A descriptor of the owner's own. Its processes wait for the file, and have
// let go by then of what others wait for the end of.
TEST_F(HangingFilesTest, KeepNobodyWaitingForWhoStartsAServerOrAZygote) {
  Pipe begin = MakePipe();
  Pipe report = MakePipe();
  Pipe go_on = MakePipe();
  // Before there is the thread of the files, which may have a lock of the
  // memory allocator's when a process is forked; not each sanitizer's is taken
  // then.
  Child owner([&] {
    const FileDescriptor file(
        open(ReadSome(begin.read.get()).c_str(), O_RDONLY | O_CLOEXEC));
    Pipe pipe = MakePipe();
    EXPECT_GT(pipe.write.get(), file.get());
    std::array<int, 2> ends;
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    auto zygote = Environment::Posix().StartZygote();
    EXPECT_THAT(zygote, IsOk());
    std::vector<std::unique_ptr<TestServer>> servers;
    for (const StartMode mode : {StartMode::kFork, StartMode::kExec}) {
      ServerOptions options;
      options.start_mode = mode;
      servers.push_back(std::make_unique<TestServer>(std::move(options)));
      EXPECT_THAT(servers.back()->BeginStart(), IsOk());
    }
    pipe.write.Reset();
    close(ends[1]);
    EXPECT_TRUE(BecomesReadable(pipe.read.get(), absl::Seconds(10)));
    EXPECT_TRUE(BecomesReadable(ends[0], absl::Seconds(10)));
    WriteAll(report.write.get(), "begun");
    (void)ReadSome(go_on.read.get());
    for (const auto& server : servers) {
      EXPECT_THAT(server->WaitUntilReady(), IsOk());
      EXPECT_THAT(server->Stop(), IsOk());
    }
    return HasFailure() ? 1 : 0;
  });
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  WriteAll(begin.write.get(), files().path());
  const bool has_begun =
      BecomesReadable(report.read.get(), absl::Seconds(30)) &&
      files().AwaitHanging(3);
  // Whatever went wrong: nobody may wait for this process when it is killed.
  StopHanging();
  WriteAll(go_on.write.get(), "x");
  EXPECT_EQ(owner.Wait(), 0);
  EXPECT_TRUE(has_begun);
}

// From half a message, whose time is over, or that had more of them than it
// may. They are more than there are threads for clients.
TEST_F(HangingFilesTest, KeepNobodyWaitingButWhoClosesThem) {
  constexpr absl::Duration kTimeout = absl::Seconds(1);
  constexpr size_t kHostile = 30;
  ServerOptions options;
  options.max_clients = 1;
  options.authentication_timeout = kTimeout;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  std::vector<std::unique_ptr<Transport>> hostile;
  for (size_t i = 0; i < kHostile; ++i) {
    hostile.push_back(SendHalf(server.socket_filename(), i % 2 == 0 ? 1 : 17));
  }
  ASSERT_TRUE(files().AwaitHanging(kHostile));
  // Who is silent is told so, and who comes in pieces is heard.
  MessageChannel silent(Connect(server.socket_filename()));
  EXPECT_THAT(silent.Read(), FailsWith(reason::kTimedOut));
  MessageChannel late(Connect(server.socket_filename()));
  absl::SleepFor(kTimeout / 20);
  late.PresentPassword(server.password());
  ASSERT_THAT(late.Write("echo", "x"), IsOk());
  EXPECT_THAT(late.Read(), testing::RepliesWith("x"));
  StopHanging();
  EXPECT_THAT(server.Stop(), IsOk());
}

// Of this process, and of a server that is forked meanwhile.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t count) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &found_), 0);
    const rlimit few{count, found_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &found_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit found_;
};

TEST_F(HangingFilesTest, KeepNobodyWaitingWhoComesWhenTheyFillTheirEighth) {
  ServerOptions options;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  {
    const FewDescriptors few(200);
    ASSERT_THAT(server.Start(), IsOk());
  }
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  // Two of these have over 25, when the next one comes.
  std::vector<std::unique_ptr<Transport>> hostile;
  for (int i = 0; i < 8; ++i) {
    hostile.push_back(SendHalf(server.socket_filename(), 16));
  }
  ASSERT_TRUE(files().AwaitHanging(1));
  // One that comes in two pieces, with a descriptor that the handler does not
  // take.
  proto::Frame frame;
  frame.set_password(std::string(server.password().Expose()));
  frame.mutable_array()->add_part("echo");
  frame.mutable_array()->add_part("x");
  frame.set_descriptors(1);
  const std::string body = frame.SerializeAsString();
  std::unique_ptr<Transport> peer = Connect(server.socket_filename());
  const FileDescriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int attached[] = {null.get()};
  ASSERT_THAT(peer->Send(Varint(body.size()), attached, absl::InfiniteFuture()),
              IsOk());
  absl::SleepFor(absl::Milliseconds(20));
  // It may have had to go itself, for one of them that is late.
  (void)peer->Send(body, {}, absl::InfiniteFuture());
  MessageChannel honest(std::move(peer));
  honest.set_timeout(kSurely / 2);
  const absl::Status heard = honest.Read().status();
  EXPECT_TRUE(HasReason(heard, reason::kInvalidArguments) ||
              HasReason(heard, reason::kServerFull))
      << heard;
  StopHanging();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(HangingFilesTest, KeepNobodyWaitingWhoComesToAFullTable) {
  ServerOptions options;
  options.authentication_timeout = kSurely;
  TestServer server(std::move(options));
  server.DefineMessageHandler("fill", [](MessageChannel& channel) {
    const rlimit few{64, 64};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) return channel.Write("refused");
    std::vector<int> filling;
    int last = -1;
    while ((last = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
      filling.push_back(last);
    }
    for (int free = 0; free < 6; ++free) {
      close(filling.back());
      filling.pop_back();
    }
    return channel.Write("filled");
  });
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(Call(server, "fill"), IsOkAndHolds("filled"));
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  const std::unique_ptr<Transport> hostile =
      SendHalf(server.socket_filename(), 1);
  std::vector<MessageChannel> held;
  for (int i = 0; i < 8; ++i) {
    held.emplace_back(Connect(server.socket_filename()));
    held.back().PresentPassword(server.password());
    held.back().set_timeout(kSurely / 2);
    absl::Status heard = held.back().Write("hold");
    if (heard.ok()) heard = held.back().Read().status();
    EXPECT_TRUE(heard.ok() || HasReason(heard, reason::kDescriptorTableFull))
        << heard;
  }
  EXPECT_TRUE(files().AwaitHanging(1));
  held.clear();
  StopHanging();
  EXPECT_THAT(server.Stop(), IsOk());
}

// Of a message that nobody has asked for, between two calls: who closes it is
// no client that is about to leave.
TEST_F(HangingFilesTest, KeepNobodyWaitingForAnothersPlace) {
  ServerOptions options;
  options.max_clients = 2;
  options.queue_timeout = kSurely;
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  const auto call_once = [&server] {
    MessageChannel channel(Connect(server.socket_filename()));
    channel.PresentPassword(server.password());
    channel.set_timeout(kSurely / 2);
    channel.ExpectEnd();
    channel.BeginCall({/*keep=*/true});
    EXPECT_THAT(channel.Write("echo", "x"), IsOk());
    EXPECT_THAT(channel.Read(), testing::RepliesWith("x"));
    EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
    EXPECT_TRUE(channel.kept());
    return channel;
  };
  // The one that would have to leave first, and cannot.
  MessageChannel hostile = call_once();
  const MessageChannel idle = call_once();
  ASSERT_THAT(hostile.Write(Message({"late"}, Attached(files().Open()))),
              IsOk());
  ASSERT_TRUE(files().AwaitHanging(1));
  for (int i = 0; i < 3; ++i) {
    MessageChannel waits = call_once();
    waits.Close();
  }
  StopHanging();
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(HangingFilesTest, KeepNobodyFromHearingThatTheServerStops) {
  ServerOptions options;
  options.authentication_timeout = kSurely;
  options.drain_time = kSurely;
  options.max_waiting_clients = 1;
  TestServer server(std::move(options));
  // Until the client goes, or the server stops.
  server.DefineMessageHandler("wait",
                              [](MessageChannel& channel) -> absl::Status {
                                WARD_RETURN_IF_ERROR(channel.Write("waits"));
                                return channel.Read().status();
                              });
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel served(Connect(server.socket_filename()));
  served.PresentPassword(server.password());
  served.set_timeout(kSurely / 2);
  ASSERT_THAT(served.Write("wait"), IsOk());
  ASSERT_THAT(served.Read(), testing::RepliesWith("waits"));
  if (!Mount()) GTEST_SKIP() << kNeeds;
  const absl::Cleanup stop_hanging = [this] { StopHanging(); };
  // One is all that may wait: the others are in the listen queue.
  std::vector<std::unique_ptr<Transport>> hostile;
  for (int i = 0; i < 3; ++i) {
    hostile.push_back(SendHalf(server.socket_filename(), 1));
  }
  std::thread stop([&server] { EXPECT_THAT(server.Stop(), IsOk()); });
  EXPECT_TRUE(files().AwaitHanging(hostile.size()));
  EXPECT_THAT(served.Read(), FailsWith(reason::kServerStopping));
  StopHanging();
  stop.join();
}

}  // namespace
}  // namespace ward

int main(int argc, char** argv) {
  ward::ServeIfExeced(argc, argv);
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
