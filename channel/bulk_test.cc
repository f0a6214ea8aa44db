// Large values that are passed as memory: as an object, as an argument of
// messages, and as what a hostile peer makes of them.

#include "ward/channel/bulk.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/open_null_for_test.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr size_t kFew = Bulk::kMostBytesInMessage;
constexpr size_t kMany = (size_t{1} << 20) + 3;
constexpr size_t kPage = 4096;
constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

// No two pages of it are the same.
std::string Text(size_t size) {
  std::string text;
  while (text.size() < size) absl::StrAppend(&text, text.size(), ",");
  text.resize(size);
  return text;
}

Bulk BulkOf(std::string_view text) {
  absl::StatusOr<BulkBuffer> buffer = AllocateBulk(text.size());
  EXPECT_THAT(buffer, IsOk());
  EXPECT_EQ(buffer->bytes().size(), text.size());
  text.copy(buffer->bytes().data(), text.size());
  absl::StatusOr<Bulk> bulk = std::move(*buffer).Seal();
  EXPECT_THAT(bulk, IsOk());
  return *std::move(bulk);
}

ino_t Inode(int fd) {
  struct stat found;
  return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

// How many mappings this process has of memory of bulks.
size_t Mappings() {
  std::ifstream maps("/proc/self/maps");
  size_t found = 0;
  for (std::string line; std::getline(maps, line);) {
    if (absl::StrContains(line, "ward-bulk")) ++found;
  }
  return found;
}

// The one that a BulkBuffer has, and that does not give it.
int MemoryOfTheOnlyBulk() {
  for (const auto& [fd, target] : OpenDescriptors()) {
    if (absl::StrContains(target, "ward-bulk")) return fd;
  }
  ADD_FAILURE() << "there is no bulk";
  return -1;
}

// None of these tests may leave a descriptor or a mapping behind.
class BulkTest : public ::testing::Test {
 protected:
  BulkTest() {
    auto ends = MessageChannel::CreatePair();
    EXPECT_THAT(ends, IsOk());
    std::tie(here_, there_) = *std::move(ends);
  }
  ~BulkTest() override {
    here_.Close();
    there_.Close();
    EXPECT_EQ(OpenDescriptors(), before_);
    EXPECT_EQ(Mappings(), 0u);
  }

  absl::StatusOr<Bulk> Receive() {
    absl::StatusOr<Message> message = there_.Read();
    if (!message.ok()) return message.status();
    auto values = message->Unpack<Bulk>();
    if (!values.ok()) return values.status();
    return std::get<0>(*std::move(values));
  }

  const std::map<int, std::string> before_ = OpenDescriptors();
  MessageChannel here_;
  MessageChannel there_;
};

// --- what users have of it ---

TEST_F(BulkTest, ASmallOneTravelsInItsMessage) {
  for (const size_t size : {size_t{0}, size_t{1}, kFew}) {
    SCOPED_TRACE(size);
    ASSERT_THAT(here_.Write(BulkOf(Text(size))), IsOk());
    ASSERT_OK_AND_ASSIGN(Message message, there_.Read());
    EXPECT_THAT(message.descriptors(), IsEmpty());
    ASSERT_OK_AND_ASSIGN(const auto values, message.Unpack<Bulk>());
    EXPECT_EQ(std::get<0>(values).bytes(), Text(size));
    EXPECT_EQ(std::get<0>(values).size(), size);
  }
  ASSERT_THAT(here_.Write(Bulk()), IsOk());
  ASSERT_OK_AND_ASSIGN(const Bulk empty, Receive());
  EXPECT_EQ(empty.bytes(), "");
}

TEST_F(BulkTest, ALargeOneIsTheSameMemoryOnBothSides) {
  for (const size_t size : {kFew + 1, kMany}) {
    SCOPED_TRACE(size);
    const std::string text = Text(size);
    const Bulk sent = BulkOf(text);
    EXPECT_TRUE(sent.bytes() == text);
    const ino_t memory = Inode(MemoryOfTheOnlyBulk());
    ASSERT_THAT(here_.Write(sent), IsOk());
    ASSERT_OK_AND_ASSIGN(Message message, there_.Read());
    ASSERT_THAT(message.descriptors(), SizeIs(1));
    EXPECT_EQ(Inode(message.descriptors()[0].get()), memory);
    EXPECT_LT(message[0].size(), 16u);
    ASSERT_OK_AND_ASSIGN(const auto values, message.Unpack<Bulk>());
    EXPECT_TRUE(std::get<0>(values).bytes() == text);
  }
}

TEST_F(BulkTest, OneThatIsKeptIsSentAgainAndOn) {
  const std::string text = Text(kMany);
  const Bulk kept = BulkOf(text);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(here_.Write(kept), IsOk());
    ASSERT_OK_AND_ASSIGN(const Bulk received, Receive());
    EXPECT_TRUE(received.bytes() == text);
    ASSERT_THAT(here_.Write(received), IsOk());
    ASSERT_THAT(there_.ReadUnpacked<Bulk>(), IsOk());
  }
}

TEST_F(BulkTest, CopiesShareItAndWhatWasMovedFromIsEmpty) {
  std::optional<Bulk> first = BulkOf(Text(kMany));
  const Bulk copy = *first;
  EXPECT_EQ(copy.bytes().data(), first->bytes().data());
  Bulk moved = *std::move(first);
  EXPECT_EQ(first->bytes(), "");
  first.reset();
  moved = Bulk();
  EXPECT_TRUE(copy.bytes() == Text(kMany));
}

TEST_F(BulkTest, StandsBesideOtherArguments) {
  Descriptors files;
  files.Add("one", OpenNull());
  files.Add("two", OpenNull());
  const FileDescriptor alone = OpenNull();
  const Bulk large = BulkOf(Text(kMany));
  ASSERT_THAT(here_.Write("text", BulkOf("small"), files, large, alone, 7,
                          BulkOf("other")),
              IsOk());
  ASSERT_OK_AND_ASSIGN(
      const auto values,
      (there_.ReadUnpacked<std::string, Bulk, Descriptors, Bulk, FileDescriptor,
                           int, Bulk>()));
  EXPECT_EQ(std::get<1>(values).bytes(), "small");
  EXPECT_THAT(std::get<2>(values).names(), ElementsAre("one", "two"));
  EXPECT_EQ(std::get<3>(values).bytes(), Text(kMany));
  EXPECT_EQ(std::get<5>(values), 7);
  EXPECT_EQ(std::get<6>(values).bytes(), "other");
}

TEST_F(BulkTest, IsZeroAtFirst) {
  for (const size_t size : {kFew, kMany}) {
    ASSERT_OK_AND_ASSIGN(BulkBuffer buffer, AllocateBulk(size));
    const std::string_view bytes(buffer.bytes().data(), buffer.bytes().size());
    EXPECT_EQ(bytes, std::string(size, '\0'));
  }
}

TEST_F(BulkTest, NobodyCanChangeIt) {
  const Bulk bulk = BulkOf(Text(kMany));
  ASSERT_THAT(here_.Write(bulk), IsOk());
  ASSERT_OK_AND_ASSIGN(const Message message, there_.Read());
  ASSERT_THAT(message.descriptors(), SizeIs(1));
  for (const int fd : {MemoryOfTheOnlyBulk(), message.descriptors()[0].get()}) {
    EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
    EXPECT_EQ(ftruncate(fd, 0), -1);
    EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1),
              -1);
    EXPECT_EQ(mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
  }
  EXPECT_TRUE(bulk.bytes() == Text(kMany));
}

TEST_F(BulkTest, AChildThatIsForkedMeanwhileDoesNotKeepItFromBeingSealed) {
  ASSERT_OK_AND_ASSIGN(BulkBuffer buffer, AllocateBulk(kMany));
  const ino_t memory = Inode(MemoryOfTheOnlyBulk());
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  ASSERT_GT(child, 0);
  ASSERT_OK_AND_ASSIGN(const Bulk bulk, std::move(buffer).Seal());
  EXPECT_EQ(Inode(MemoryOfTheOnlyBulk()), memory);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_F(BulkTest, WhatSomebodyCanStillWriteToIsCopied) {
  ASSERT_OK_AND_ASSIGN(BulkBuffer buffer, AllocateBulk(kMany));
  Text(kMany).copy(buffer.bytes().data(), kMany);
  void* const other = mmap(nullptr, kMany, PROT_READ | PROT_WRITE, MAP_SHARED,
                           MemoryOfTheOnlyBulk(), 0);
  ASSERT_NE(other, MAP_FAILED);
  ASSERT_OK_AND_ASSIGN(const Bulk bulk, std::move(buffer).Seal());
  std::memset(other, 'x', kMany);
  EXPECT_TRUE(bulk.bytes() == Text(kMany));
  ASSERT_THAT(here_.Write(bulk), IsOk());
  ASSERT_OK_AND_ASSIGN(const Bulk received, Receive());
  EXPECT_TRUE(received.bytes() == Text(kMany));
  munmap(other, kMany);
}

// Without the limit, were it not an error, a SIZE_MAX would take all memory.
TEST_F(BulkTest, MoreThanThereMayBeIsAnErrorThatSaysWhy) {
  rlimit found;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &found), 0);
  const rlimit little = {kFew, found.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  const absl::Status huge = AllocateBulk(SIZE_MAX).status();
  const absl::Status large = AllocateBulk(kMany).status();
  const absl::Status small = AllocateBulk(kFew).status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &found), 0);
  EXPECT_EQ(huge.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(huge.message()), HasSubstr("this machine has less"));
  EXPECT_THAT(std::string(large.message()), HasSubstr("ulimit -f"));
  EXPECT_THAT(small, IsOk());
}

// --- what a peer may say ---

// A part, as a sender that has sent `bytes`, or memory of `size`.
std::string PartOf(uint64_t size, std::string_view bytes = "") {
  proto::Bulk part;
  part.set_size(size);
  part.set_bytes(std::string(bytes));
  return part.SerializeAsString();
}

FileDescriptor MakeMemory(unsigned flags = 0) {
  return FileDescriptor(
      memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
}

// Of so many bytes, all of them there, with these seals.
FileDescriptor MemoryOf(size_t size, int seals = kAllSeals) {
  FileDescriptor memory = MakeMemory();
  EXPECT_EQ(fallocate(memory.get(), 0, 0, static_cast<off_t>(size)), 0);
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, seals), 0);
  return memory;
}

// What comes of such a message. All that is wrong leaves it as it was.
absl::StatusOr<Bulk> Unpacked(const std::string& part,
                              std::vector<FileDescriptor> attached) {
  const size_t count = attached.size();
  Message message({part}, std::move(attached));
  auto values = message.Unpack<Bulk>();
  EXPECT_EQ(message[0], part);
  if (values.ok()) return std::get<0>(*std::move(values));
  EXPECT_THAT(message.descriptors(), SizeIs(count));
  for (const FileDescriptor& descriptor : message.descriptors()) {
    EXPECT_GE(fcntl(descriptor.get(), F_GETFD), 0);
  }
  EXPECT_EQ(Mappings(), 0u);
  return values.status();
}

absl::StatusOr<Bulk> Unpacked(uint64_t size, FileDescriptor memory) {
  std::vector<FileDescriptor> attached;
  attached.push_back(std::move(memory));
  return Unpacked(PartOf(size), std::move(attached));
}

TEST_F(BulkTest, AStrangersSealedMemoryIsTaken) {
  FileDescriptor memory = MakeMemory();
  const std::string text = Text(kPage + 7);
  ASSERT_EQ(pwrite(memory.get(), text.data(), text.size(), 0),
            static_cast<ssize_t>(text.size()));
  ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, kAllSeals), 0);
  // Where the descriptor stands means nothing.
  lseek(memory.get(), kPage, SEEK_SET);
  ASSERT_OK_AND_ASSIGN(const Bulk bulk,
                       Unpacked(text.size(), std::move(memory)));
  EXPECT_TRUE(bulk.bytes() == text);
}

TEST_F(BulkTest, WhatIsNoMemoryIsRefused) {
  const auto opened = [](const char* path, int flags) {
    FileDescriptor file(open(path, flags | O_CLOEXEC));
    EXPECT_TRUE(file.is_open()) << path;
    return file;
  };
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const FileDescriptor write_end(pipe_ends[1]);
  std::vector<FileDescriptor> others;
  others.emplace_back(pipe_ends[0]);
  others.push_back(opened("/", O_RDONLY | O_DIRECTORY));
  others.push_back(opened("/", O_PATH));
  others.push_back(opened("/dev/null", O_RDWR));
  others.push_back(opened("/dev/zero", O_RDWR));
  others.push_back(opened("/proc/self/exe", O_RDONLY));
  others.push_back(opened("/proc/self/mem", O_RDONLY));
  others.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (FileDescriptor& other : others) {
    SCOPED_TRACE(TargetOf(other.get()));
    EXPECT_THAT(Unpacked(kPage, std::move(other)),
                FailsWith(reason::kInvalidArguments,
                          "argument 1: the descriptor that came for a bulk is "
                          "not fit: it is no memfd"));
  }
  // On a file system in memory there are no seals but against seals.
  FileDescriptor file(open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file.is_open()) GTEST_SKIP() << "no /dev/shm";
  EXPECT_THAT(Unpacked(kPage, std::move(file)),
              FailsWith(reason::kInvalidArguments, "is not fit"));
}

TEST_F(BulkTest, WhatItsSenderCouldChangeIsRefused) {
  for (const int seals :
       {0, F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_SHRINK,
        F_SEAL_WRITE | F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_GROW,
        F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE}) {
    SCOPED_TRACE(seals);
    EXPECT_THAT(
        Unpacked(kPage, MemoryOf(kPage, seals)),
        FailsWith(reason::kInvalidArguments, "its sender can change it still"));
  }
  // One that it cannot seal any more, either.
  EXPECT_THAT(Unpacked(kPage, FileDescriptor(memfd_create("m", MFD_CLOEXEC))),
              FailsWith(reason::kInvalidArguments, "can change it still"));
}

TEST_F(BulkTest, ASizeThatIsNotSoIsRefused) {
  for (const size_t said :
       {size_t{1}, kPage - 1, kPage + 1, 2 * kPage, size_t{1} << 29}) {
    SCOPED_TRACE(said);
    EXPECT_THAT(Unpacked(said, MemoryOf(kPage)),
                FailsWith(reason::kInvalidArguments,
                          absl::StrCat("it has not the ", said, " bytes")));
  }
  // Nor does it end who may make no files of that size (SIGXFSZ).
  FileDescriptor memory = MemoryOf(kPage);
  rlimit found;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &found), 0);
  const rlimit none = {0, found.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  const auto large = Unpacked(size_t{1} << 29, std::move(memory));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &found), 0);
  EXPECT_THAT(large, FailsWith(reason::kInvalidArguments, "it has not the"));
  EXPECT_THAT(Unpacked(PartOf(kPage), {}),
              FailsWith(reason::kInvalidArguments, "1 descriptor"));
  EXPECT_THAT(Unpacked(0, MemoryOf(kPage)),
              FailsWith(reason::kInvalidArguments, "0 descriptors"));
  // An empty one has no memory to map.
  FileDescriptor empty = MakeMemory();
  ASSERT_EQ(fcntl(empty.get(), F_ADD_SEALS, kAllSeals), 0);
  EXPECT_THAT(Unpacked(1, std::move(empty)),
              FailsWith(reason::kInvalidArguments, "is not fit"));
}

TEST_F(BulkTest, WhatIsAnnouncedAndNotThereIsRefused) {
  constexpr uint64_t kTebibyte = uint64_t{1} << 40;
  const auto sparse = [](uint64_t size) {
    FileDescriptor memory = MakeMemory();
    EXPECT_EQ(ftruncate(memory.get(), static_cast<off_t>(size)), 0);
    EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, kAllSeals), 0);
    return memory;
  };
  EXPECT_THAT(Unpacked(kTebibyte, sparse(kTebibyte)),
              FailsWith(reason::kFrameTooLarge, "argument 1: a bulk has"));
  EXPECT_THAT(Unpacked(UINT64_MAX, sparse(kTebibyte)),
              FailsWith(reason::kFrameTooLarge));
  constexpr std::string_view kHoles = "has not allocated all of its memory";
  EXPECT_THAT(Unpacked(size_t{1} << 30, sparse(size_t{1} << 30)),
              FailsWith(reason::kInvalidArguments, kHoles));
  // Who allows as much does not get it, either.
  ChannelLimits limits;
  limits.max_bulk_bytes = SIZE_MAX;
  there_.set_limits(limits);
  ASSERT_THAT(here_.Write(PartOf(kTebibyte), sparse(kTebibyte)), IsOk());
  EXPECT_THAT(Receive(), FailsWith(reason::kInvalidArguments, kHoles));
  // One page is missing.
  FileDescriptor holed = MemoryOf(kMany, 0);
  ASSERT_EQ(fallocate(holed.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      kPage, kPage),
            0);
  // As many are behind its end.
  ASSERT_EQ(fallocate(holed.get(), FALLOC_FL_KEEP_SIZE, 2 * kMany, kPage), 0);
  ASSERT_EQ(fcntl(holed.get(), F_ADD_SEALS, kAllSeals), 0);
  EXPECT_THAT(Unpacked(kMany, std::move(holed)),
              FailsWith(reason::kInvalidArguments, kHoles));
}

TEST_F(BulkTest, HugePagesThatMayBeMissingAreRefused) {
  FileDescriptor memory = MakeMemory(MFD_HUGETLB);
  if (!memory.is_open()) GTEST_SKIP() << "this kernel has none";
  constexpr size_t kHuge = size_t{1} << 30;
  if (ftruncate(memory.get(), kHuge) != 0 ||
      fcntl(memory.get(), F_ADD_SEALS, kAllSeals) != 0) {
    GTEST_SKIP() << "none of this size, or that are sealed";
  }
  EXPECT_THAT(Unpacked(kHuge, std::move(memory)),
              FailsWith(reason::kInvalidArguments, "it has huge pages"));
}

TEST_F(BulkTest, MemoryThatCanOnlyBeReadIsRefused) {
  const FileDescriptor memory = MemoryOf(kPage);
  FileDescriptor read_only(
      open(absl::StrCat("/proc/self/fd/", memory.get()).c_str(),
           O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(read_only.is_open());
  EXPECT_THAT(Unpacked(kPage, std::move(read_only)),
              FailsWith(reason::kInvalidArguments, "to be read only"));
}

TEST_F(BulkTest, APartThatIsNoneIsRefused) {
  for (const std::string& part :
       {PartOf(3, "abc"), std::string("no protobuf"), std::string("\x08")}) {
    EXPECT_THAT(Unpacked(part, {}),
                FailsWith(reason::kInvalidArguments,
                          "argument 1 must be a bulk, either its bytes or its "
                          "size"));
  }
}

TEST_F(BulkTest, TheSecondOfTwoThatIsUnfitLeavesTheMessageAsItWas) {
  std::vector<FileDescriptor> attached;
  attached.push_back(MemoryOf(kPage));
  attached.push_back(MemoryOf(kPage, 0));
  Message message({PartOf(kPage), PartOf(kPage)}, std::move(attached));
  EXPECT_THAT((message.Unpack<Bulk, Bulk>()),
              FailsWith(reason::kInvalidArguments, "argument 2: "));
  EXPECT_THAT(message.descriptors(), SizeIs(2));
  // It can still be read as something else.
  EXPECT_THAT(
      (message
           .Unpack<std::string, FileDescriptor, FileDescriptor, std::string>()),
      IsOk());
}

TEST_F(BulkTest, ALimitHoldsForWhatIsReadAndLeavesTheChannelInStep) {
  ChannelLimits limits;
  limits.max_bulk_bytes = kMany - 1;
  there_.set_limits(limits);
  const Bulk bulk = BulkOf(Text(kMany));
  ASSERT_THAT(here_.Write(bulk), IsOk());
  ASSERT_THAT(here_.Write(bulk), IsOk());
  ASSERT_THAT(here_.Write(BulkOf(Text(kMany - 1))), IsOk());
  EXPECT_THAT(Receive(),
              FailsWith(reason::kFrameTooLarge,
                        absl::StrCat("argument 1: a bulk has ", kMany,
                                     " bytes, over the ", kMany - 1)));
  EXPECT_THAT(there_.ReadUnpacked<Bulk>(), FailsWith(reason::kFrameTooLarge));
  ASSERT_OK_AND_ASSIGN(const Bulk received, Receive());
  EXPECT_TRUE(received.bytes() == Text(kMany - 1));
}

}  // namespace
}  // namespace ward
