// Streams that no peer of ours would write, each from a seed, so that a failure
// names the one to run again. With --runs_per_test each run has others. A
// channel must come to an end with each, say why in one of the documented ways,
// keep no descriptor, and take no more memory than what came can justify.

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/io/coded_stream.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/open_null_for_test.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/environment_variable.h"

namespace {

// Bytes that operator new has given out, and the most since the last reset.
std::atomic<size_t> allocated{0};
std::atomic<size_t> peak{0};

}  // namespace

void* operator new(size_t size) {
  void* const memory = malloc(size);
  if (memory == nullptr) abort();
  const size_t now = allocated += malloc_usable_size(memory);
  if (now > peak) peak = now;
  return memory;
}

void operator delete(void* memory) noexcept {
  allocated -= malloc_usable_size(memory);
  free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace ward {
namespace {

constexpr uint64_t kStreams = 5'000;

uint64_t FirstSeed() { return kStreams * testing::RunNumber(); }
constexpr std::string_view kPassword = "open sesame";

// Not a std::..._distribution: those differ between libraries.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  // Less than `bound`.
  size_t Below(size_t bound) { return engine_() % bound; }
  bool OneIn(size_t n) { return Below(n) == 0; }

  std::string Bytes(size_t size) {
    std::string bytes;
    while (bytes.size() < size) bytes.push_back(static_cast<char>(engine_()));
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

std::string Delimited(std::string_view body) {
  uint8_t length[10];
  uint8_t* const end =
      google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(body.size(),
                                                                    length);
  return absl::StrCat(std::string(length, end), body);
}

proto::Frame SomeFrame(Random& random) {
  proto::Frame frame;
  if (random.OneIn(3)) {
    frame.set_descriptors(static_cast<uint32_t>(random.Below(4)));
  }
  if (random.OneIn(4)) frame.set_password(std::string(kPassword));
  switch (random.Below(6)) {
    case 0:
      frame.set_scalar(random.Bytes(random.Below(300)));
      break;
    case 1:
      frame.mutable_error()->set_code(static_cast<int>(random.Below(20)));
      frame.mutable_error()->set_reason("PeersOwn");
      frame.mutable_error()->set_text("text");
      break;
    case 2:  // The most memory for its bytes.
      for (size_t n = random.Below(random.OneIn(4) ? 5000 : 50); n > 0; --n) {
        frame.mutable_array()->add_part();
      }
      break;
    default:
      frame.mutable_array();
      for (size_t n = random.Below(6); n > 0; --n) {
        frame.mutable_array()->add_part(random.Bytes(random.Below(40)));
      }
  }
  return frame;
}

void Mutate(std::string& bytes, Random& random) {
  static const std::string* const kInteresting[] = {
      new std::string("\xff\xff\xff\xff\x0f"),
      new std::string("\x80\x80\x80\x80\x10"),
      new std::string("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
      new std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
      new std::string("\x80\x80\x80\x08"),  // 16 MiB.
      new std::string("\x08\xff\xff\xff\xff\x0f"),
      new std::string("\x1a"),
      new std::string("\x2a"),
      new std::string("\x0b\x0c"),
      new std::string(1, '\0'),
  };
  const size_t at = random.Below(bytes.size() + 1);
  const size_t size = random.Below(8);
  switch (random.Below(6)) {
    case 0:
      if (at < bytes.size()) {
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << size));
      }
      break;
    case 1:
      bytes.erase(at, size);
      break;
    case 2:
      bytes.insert(at, random.Bytes(size));
      break;
    case 3:
      bytes.insert(at, *kInteresting[random.Below(std::size(kInteresting))]);
      break;
    case 4:
      bytes.insert(at, bytes.substr(random.Below(bytes.size() + 1), 50));
      break;
    default:
      bytes.resize(at);
  }
}

std::string SomeStream(Random& random) {
  if (random.OneIn(8)) return random.Bytes(random.Below(200));
  std::string bytes;
  for (size_t n = 1 + random.Below(4); n > 0; --n) {
    std::string body = SomeFrame(random).SerializeAsString();
    // Inside, too, so that the length still fits.
    if (random.OneIn(3)) Mutate(body, random);
    bytes += Delimited(body);
  }
  for (size_t n = random.Below(4); n > 0; --n) Mutate(bytes, random);
  return bytes;
}

// `bytes` cut up, and what comes with each piece.
std::vector<Script::Piece> SomePieces(std::string_view bytes, Random& random,
                                      int descriptor) {
  std::vector<Script::Piece> pieces;
  while (!bytes.empty()) {
    const size_t size =
        std::min(bytes.size(), 1 + random.Below(random.OneIn(2) ? 20 : 5000));
    Script::Piece piece;
    piece.bytes = std::string(bytes.substr(0, size));
    if (random.OneIn(4)) {
      for (size_t n = random.Below(4); n > 0; --n) {
        absl::StatusOr<FileDescriptor> copy =
            FileDescriptor::DuplicateOf(descriptor);
        EXPECT_TRUE(copy.ok()) << copy.status();
        if (copy.ok()) piece.descriptors.push_back(*std::move(copy));
      }
      piece.truncated = random.OneIn(8);
    }
    pieces.push_back(std::move(piece));
    bytes.remove_prefix(size);
  }
  return pieces;
}

// Sends `pieces` as they are, on a socket with room for all of them.
void SendRaw(int socket, const std::vector<Script::Piece>& pieces) {
  for (const Script::Piece& piece : pieces) {
    union {
      cmsghdr header;
      char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {};
    iovec data{const_cast<char*>(piece.bytes.data()), piece.bytes.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (!piece.descriptors.empty()) {
      const size_t size = piece.descriptors.size() * sizeof(int);
      message.msg_control = &control;
      message.msg_controllen = CMSG_SPACE(size);
      control.header.cmsg_level = SOL_SOCKET;
      control.header.cmsg_type = SCM_RIGHTS;
      control.header.cmsg_len = CMSG_LEN(size);
      for (size_t i = 0; i < piece.descriptors.size(); ++i) {
        const int fd = piece.descriptors[i].get();
        std::memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd,
                    sizeof(int));
      }
    }
    ASSERT_EQ(sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT),
              static_cast<ssize_t>(piece.bytes.size()));
  }
}

// One operation, whichever; its result.
absl::Status Operate(MessageChannel& channel, Random& random) {
  std::string scalar;
  switch (random.Below(8)) {
    case 0:
      return channel.ReadMap().status();
    case 1:
      return channel.ReadScalar(scalar);
    case 2:
      return channel.ReadScalar(scalar, random.Below(400));
    case 3:
      return channel.ReadDescriptor().status();
    default:
      return channel.Read().status();
  }
}

// Whether `status` is one that a header documents for reading, or an error
// frame's, whose reason the peer is free to choose: then it came in `stream`.
bool IsDocumented(const absl::Status& status, std::string_view stream) {
  for (const Reason& reason :
       {reason::kEndOfStream, reason::kConnectionLost, reason::kMalformedFrame,
        reason::kFrameTooLarge, reason::kUnexpectedFrame,
        reason::kInvalidArguments, reason::kInvalidPassword,
        reason::kTooManyDescriptors, reason::kDescriptorsTruncated}) {
    if (HasReason(status, reason)) return status.code() == reason.code;
  }
  return absl::StrContains(stream, "\x2a") &&
         absl::StrContains(stream, ReasonOf(status));
}

// Reads until nothing more can come, and says how it ended.
absl::Status ReadToTheEnd(MessageChannel& channel, std::string_view stream,
                          Random& random) {
  // No frame has fewer than two bytes, length included; and no stream has so
  // many in a row that fail in the same way.
  constexpr int kForGood = 20;
  absl::Status before;
  int same = 0;
  for (size_t left = stream.size() / 2 + 2; left > 0; --left) {
    absl::Status status = Operate(channel, random);
    if (status.ok()) continue;
    same = status == before ? same + 1 : 0;
    if (same == kForGood) break;
    before = status;
    EXPECT_TRUE(IsDocumented(status, stream)) << status;
    if (HasReason(status, reason::kEndOfStream)) return status;
  }
  // Still failing: then it does so for good.
  absl::Status last = channel.Read().status();
  EXPECT_FALSE(last.ok());
  EXPECT_EQ(channel.Read().status(), last);
  return last;
}

class RobustnessTest : public ::testing::Test {
 protected:
  // What one stream may cost: the parts' and the frame's own memory, at most
  // 4,096 parts in one, and everything twice while buffers grow.
  static size_t MemoryFor(std::string_view stream) {
    return (size_t{1} << 20) + 8 * stream.size();
  }

  void Configure(MessageChannel& channel, Random& random) {
    ChannelLimits limits;
    if (random.OneIn(4)) limits.max_descriptors = random.Below(3);
    if (random.OneIn(4)) limits.max_parts = random.Below(10);
    if (random.OneIn(4)) limits.max_frame_bytes = random.Below(500);
    channel.set_limits(limits);
    if (random.OneIn(4)) channel.ExpectPassword(password_);
  }

  const FileDescriptor null_ = OpenNull();
  const Secret password_{kPassword};
  const std::map<int, std::string> open_before_ = OpenDescriptors();
};

TEST_F(RobustnessTest, EveryStreamEndsOverAScriptedTransport) {
  std::map<std::string, int> ends;
  for (uint64_t seed = FirstSeed(); seed < FirstSeed() + kStreams; ++seed) {
    Random random(seed);
    const std::string stream = SomeStream(random);
    auto script = std::make_shared<Script>();
    for (Script::Piece& piece : SomePieces(stream, random, null_.get())) {
      script->incoming.push_back(std::move(piece));
    }
    const size_t pieces = script->incoming.size();
    script->interruptions = random.OneIn(2);
    peak = allocated.load();
    const size_t before = allocated;
    {
      MessageChannel channel(std::make_unique<ScriptedTransport>(script));
      Configure(channel, random);
      if (random.OneIn(8)) {
        script->sendable = 0;
        script->send_error = MakeError(reason::kConnectionLost, "gone");
        const absl::Status status = channel.Write("hello");
        EXPECT_FALSE(status.ok());
        EXPECT_TRUE(IsDocumented(status, stream)) << status;
      }
      ++ends[ReasonOf(ReadToTheEnd(channel, stream, random))];
    }
    EXPECT_LE(peak - before, MemoryFor(stream));
    // Each piece once, or in parts if the room was too small, and one end.
    EXPECT_LE(script->receives, 2 * (pieces + stream.size() / 1000 + 2) + 60);
    script->incoming.clear();
    if (HasFailure() || OpenDescriptors() != open_before_) {
      FAIL() << "stream " << seed << " leaked, or failed as above";
    }
  }
  // The streams are varied enough to get everywhere.
  for (const Reason& reason :
       {reason::kEndOfStream, reason::kConnectionLost, reason::kMalformedFrame,
        reason::kFrameTooLarge, reason::kInvalidPassword}) {
    EXPECT_GE(ends[std::string(reason.name)], 20) << reason.name;
  }
}

TEST_F(RobustnessTest, EveryStreamEndsOverASocket) {
  for (uint64_t seed = FirstSeed(); seed < FirstSeed() + kStreams / 4; ++seed) {
    Random random(seed);
    const std::string stream = SomeStream(random);
    peak = allocated.load();
    const size_t before = allocated;
    {
      int ends[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
      FileDescriptor peer(ends[0]);
      MessageChannel channel{FileDescriptor(ends[1])};
      Configure(channel, random);
      SendRaw(peer.get(), SomePieces(stream, random, null_.get()));
      peer.Reset();
      (void)ReadToTheEnd(channel, stream, random);
    }
    EXPECT_LE(peak - before, MemoryFor(stream));
    if (HasFailure() || OpenDescriptors() != open_before_) {
      FAIL() << "stream " << seed << " leaked, or failed as above";
    }
  }
}

TEST_F(RobustnessTest, WhatIsLargeIsCopiedNowhere) {
  auto script = std::make_shared<Script>();
  const std::string large(8 << 20, 'x');
  // Neither has to grow.
  script->sent.reserve(2 * large.size());
  std::string got(large.size(), ' ');
  MessageChannel channel(std::make_unique<ScriptedTransport>(script));
  for (const bool as_array : {false, true}) {
    script->sent.clear();
    peak = allocated.load();
    const size_t before = allocated;
    ASSERT_TRUE(
        (as_array ? channel.Write(large) : channel.WriteScalar(large)).ok());
    EXPECT_LE(peak - before, size_t{16} << 10);
    EXPECT_EQ(script->sends, as_array ? 2u : 1u);
  }
  script->sent.clear();
  ASSERT_TRUE(channel.WriteScalar(large).ok());
  script->incoming.push_back({script->sent, {}, false, 0});
  peak = allocated.load();
  const size_t before = allocated;
  ASSERT_TRUE(channel.ReadScalar(got).ok());
  EXPECT_LE(peak - before, size_t{16} << 10);
  EXPECT_TRUE(got == large);
}

TEST_F(RobustnessTest, EveryMessageComesBackTheSameHoweverItIsCut) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    auto script = std::make_shared<Script>();
    std::vector<std::vector<std::string>> messages;
    std::vector<size_t> descriptors;
    {
      MessageChannel writer(std::make_unique<ScriptedTransport>(script));
      script->most_sent = 1 + random.Below(1000);
      for (size_t n = random.Below(5); n > 0; --n) {
        std::vector<std::string> parts;
        for (size_t p = random.Below(6); p > 0; --p) {
          parts.push_back(
              random.Bytes(random.Below(random.OneIn(9) ? 9000 : 30)));
        }
        std::vector<FileDescriptor> attached;
        for (size_t d = random.Below(4); d > 0; --d) {
          absl::StatusOr<FileDescriptor> copy =
              FileDescriptor::DuplicateOf(null_.get());
          ASSERT_TRUE(copy.ok());
          attached.push_back(*std::move(copy));
        }
        descriptors.push_back(attached.size());
        messages.push_back(parts);
        ASSERT_TRUE(writer.Write(Message(parts, std::move(attached))).ok());
      }
    }
    // Received as the kernel might: cut anywhere, the descriptors with the
    // piece that has their frame's first byte, which ends a receive.
    auto attached = script->attached.begin();
    size_t begin = 0;
    while (begin < script->sent.size()) {
      size_t end =
          std::min(script->sent.size(), begin + 1 + random.Below(2000));
      Script::Piece piece;
      if (attached != script->attached.end() && attached->first < end) {
        for (size_t d = attached->second.size(); d > 0; --d) {
          absl::StatusOr<FileDescriptor> copy =
              FileDescriptor::DuplicateOf(null_.get());
          ASSERT_TRUE(copy.ok());
          piece.descriptors.push_back(*std::move(copy));
        }
        piece.at = attached->first - begin;
        ++attached;
        if (attached != script->attached.end()) {
          end = std::min(end, attached->first);
        }
      }
      piece.bytes = script->sent.substr(begin, end - begin);
      script->incoming.push_back(std::move(piece));
      begin = end;
    }
    script->interruptions = random.OneIn(2);
    MessageChannel reader(std::make_unique<ScriptedTransport>(script));
    for (size_t i = 0; i < messages.size(); ++i) {
      absl::StatusOr<Message> message = reader.Read();
      ASSERT_TRUE(message.ok()) << message.status() << ", seed " << seed;
      ASSERT_THAT(message->parts(), ::testing::ElementsAreArray(messages[i]))
          << "seed " << seed;
      ASSERT_EQ(message->descriptors().size(), descriptors[i])
          << "seed " << seed;
    }
    EXPECT_TRUE(HasReason(reader.Read().status(), reason::kEndOfStream));
  }
  EXPECT_EQ(OpenDescriptors(), open_before_);
}

}  // namespace
}  // namespace ward
