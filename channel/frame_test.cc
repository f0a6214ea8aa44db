// Ward's frames against protobuf's: what one writes the other reads.

#include "ward/channel/frame.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/frame_reference_for_test.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::EnvironmentNumber;
using testing::IsOk;
using testing::RunNumber;

using ::testing::ElementsAreArray;

constexpr uint64_t kFrames = 2'000;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t Any() { return engine_(); }
  size_t Below(size_t bound) { return engine_() % bound; }

  std::string ShortBytes() {
    std::string bytes(Below(8), '\0');
    for (char& byte : bytes) byte = static_cast<char>(Below(256));
    return bytes;
  }

  // Mostly short; lengths around those that take another byte, too.
  std::string Bytes() {
    const size_t edges[] = {0, 1, 127, 128, 16'383, 16'384};
    std::string bytes(Below(8) == 0 ? edges[Below(6)] : Below(20), '\0');
    for (char& byte : bytes) byte = static_cast<char>(Below(256));
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

proto::Frame MakeFrame(Random& random) {
  proto::Frame frame;
  switch (random.Below(4)) {
    case 0: {
      proto::Array& array = *frame.mutable_array();
      for (size_t i = random.Below(6); i > 0; --i) {
        array.add_part(random.Bytes());
      }
      break;
    }
    case 1:
      frame.set_scalar(random.Bytes());
      break;
    case 2:
      frame.mutable_end()->set_kept(random.Below(2) == 0);
      break;
    default: {
      proto::Error& error = *frame.mutable_error();
      error.set_code(1 + static_cast<int>(random.Below(16)));
      error.set_reason(random.Bytes().substr(0, 128));
      error.set_text(random.Bytes().substr(0, 4096));
    }
  }
  if (random.Below(3) == 0) frame.set_password(random.Bytes());
  frame.set_knows_end(random.Below(3) == 0);
  if (random.Below(3) == 0) {
    frame.mutable_call()->set_keep(random.Below(2) == 0);
    frame.mutable_call()->set_time_left(random.Below(100'000));
    if (random.Below(2) == 0) {
      frame.mutable_call()->set_trace_id(random.Bytes().substr(0, 128));
    }
  }
  return frame;
}

TEST(FrameTest, ReadsWhatProtobufWrites) {
  for (uint64_t seed = 0; seed < kFrames; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    proto::Frame expected = MakeFrame(random);
    expected.set_descriptors(static_cast<uint32_t>(random.Below(254)));
    const std::string body = expected.SerializeAsString();
    Frame frame;
    ASSERT_THAT(ParseFrame(body, frame), IsOk());
    EXPECT_EQ(frame.descriptors, expected.descriptors());
    EXPECT_EQ(frame.password.value_or(""), expected.password());
    EXPECT_EQ(frame.knows_end, expected.knows_end());
    EXPECT_EQ(frame.call.has_value(), expected.has_call());
    const CallHeader call = frame.call.value_or(CallHeader());
    EXPECT_EQ(call.keep, expected.call().keep());
    EXPECT_EQ(call.time_left, expected.call().time_left());
    EXPECT_EQ(call.trace_id, expected.call().trace_id());
    if (frame.content == Frame::Content::kArray) {
      ASSERT_TRUE(expected.has_array());
      std::vector<std::string> parts;
      for (EncodedParts in(frame); in.left() > 0;) {
        parts.emplace_back(in.Next());
      }
      EXPECT_THAT(parts, ElementsAreArray(expected.array().part()));
    } else if (frame.content == Frame::Content::kScalar) {
      ASSERT_TRUE(expected.has_scalar());
      EXPECT_EQ(frame.scalar, expected.scalar());
    } else if (frame.content == Frame::Content::kEnd) {
      EXPECT_TRUE(expected.has_end());
      EXPECT_EQ(frame.end.kept, expected.end().kept());
    } else {
      ASSERT_TRUE(expected.has_error());
      EXPECT_EQ(frame.error.code, expected.error().code());
      EXPECT_EQ(frame.error.reason, expected.error().reason());
      EXPECT_EQ(frame.error.text, expected.error().text());
    }
  }
}

std::string Described(std::string_view body) {
  Frame frame;
  const absl::Status parsed = ParseFrame(body, frame);
  if (!parsed.ok()) return "malformed";
  std::string text = absl::StrCat(static_cast<int>(frame.content), " ",
                                  frame.encoded_part_count);
  for (EncodedParts parts(frame); parts.left() > 0;) {
    absl::StrAppend(&text, " ", absl::CHexEscape(parts.Next()));
  }
  return text;
}

// A varint, which may be longer than it needs to be, or than it may.
std::string AnyVarint(Random& random, uint64_t value) {
  std::string varint;
  for (; value >= 0x80; value >>= 7) {
    varint.push_back(static_cast<char>(value | 0x80));
  }
  varint.push_back(static_cast<char>(value));
  for (size_t i = random.Below(16) == 0 ? random.Below(10) : 0; i > 0; --i) {
    varint.back() = static_cast<char>(varint.back() | '\x80');
    varint.push_back('\0');
  }
  return varint;
}

// A message of a few fields, mostly such as there may be in a frame; `contents`
// are what those of bytes may have.
std::string AnyFields(Random& random,
                      const std::vector<std::string>& contents) {
  std::string fields;
  for (size_t i = random.Below(5); i > 0; --i) {
    const bool is_odd = random.Below(16) == 0;
    const uint64_t number = random.Below(is_odd ? 40 : 9) + (is_odd ? 0 : 1);
    uint64_t type = number == 1 || number == 8 ? kVarintType : kBytesType;
    if (is_odd || random.Below(16) == 0) type = random.Below(8);
    fields += AnyVarint(random, number << 3 | type);
    const std::string& content = contents[random.Below(contents.size())];
    if (type == kVarintType) {
      fields += AnyVarint(random, random.Any() >> random.Below(64));
    } else if (type == kBytesType) {
      fields += AnyVarint(random, content.size()) + content;
    } else {
      fields += content;
    }
  }
  return fields;
}

std::string AnyBody(Random& random) {
  const std::vector<std::string> values = {"", random.ShortBytes(),
                                           random.ShortBytes()};
  return AnyFields(random, {values[1], AnyFields(random, values),
                            AnyFields(random, values)});
}

// With a byte another, or more or less of them.
void Change(Random& random, std::string& body) {
  const size_t at = random.Below(body.size() + 1);
  switch (random.Below(6)) {
    case 0:
      body.resize(at);
      break;
    case 1:
      body.erase(at, 1 + random.Below(3));
      break;
    case 2:
      body.insert(at, random.ShortBytes());
      break;
    case 3:
      body.insert(at, body.substr(random.Below(body.size() + 1), 8));
      break;
    case 4:
      if (at < body.size()) body[at] = static_cast<char>(body[at] ^ '\x80');
      break;
    default:
      if (at < body.size()) body[at] = static_cast<char>(random.Below(256));
  }
}

// With --test_env=WARD_RUNS=100000000, so many.
TEST(FrameTest, TakesNoFrameOtherwiseThanProtobufOrWithMoreCare) {
  const uint64_t runs = EnvironmentNumber("WARD_RUNS", 100'000);
  Random random(RunNumber());
  std::vector<std::string> bodies;
  while (bodies.size() < 500) {
    const std::string body = MakeFrame(random).SerializeAsString();
    // What is long takes long, and has nothing that is not there in short.
    if (body.size() < 400) bodies.push_back(body);
  }
  uint64_t taken = 0;
  for (uint64_t run = 0; run < runs; ++run) {
    std::string body = random.Below(2) == 0
                           ? AnyBody(random)
                           : bodies[random.Below(bodies.size())];
    for (size_t i = random.Below(4); i > 0; --i) Change(random, body);
    ASSERT_EQ(FaultOfParseFrame(body), "") << absl::CHexEscape(body);
    Frame frame;
    if (ParseFrame(body, frame).ok()) ++taken;
  }
  // Otherwise it would show little.
  EXPECT_GT(taken, runs / 10);
  EXPECT_LT(taken, runs - runs / 10);
}

// A field that is not known has a frame looked at with care.
TEST(FrameTest, ReadsPlainArraysAsItReadsOthers) {
  constexpr std::string_view kUnknownField("\x50\0", 2);
  for (uint64_t seed = 0; seed < kFrames; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    proto::Frame frame;
    frame.mutable_array();
    for (size_t i = random.Below(4); i > 0; --i) {
      frame.mutable_array()->add_part(random.Bytes());
    }
    std::string body = frame.SerializeAsString();
    const auto read = [&] { return Described(body); };
    const auto read_with_care = [&] {
      return Described(absl::StrCat(kUnknownField, body));
    };
    EXPECT_NE(read(), "malformed");
    EXPECT_EQ(read(), read_with_care());
    // With one byte of the first ones another, or none behind it.
    const size_t at = random.Below(std::min(body.size(), size_t{40}));
    body[at] = static_cast<char>(random.Below(256));
    EXPECT_EQ(read(), read_with_care()) << absl::CHexEscape(body);
    body.resize(at);
    EXPECT_EQ(read(), read_with_care()) << absl::CHexEscape(body);
  }
}

TEST(FrameTest, WritesWhatProtobufWrites) {
  for (uint64_t seed = 0; seed < kFrames; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    proto::Frame expected = MakeFrame(random);
    const auto script = std::make_shared<Script>();
    MessageChannel channel(std::make_unique<ScriptedTransport>(script));
    const Secret password(expected.password());
    if (!expected.password().empty()) channel.PresentPassword(password);
    if (expected.knows_end()) channel.ExpectEnd();
    if (expected.has_call()) {
      const auto left = static_cast<int64_t>(expected.call().time_left());
      channel.BeginCall(
          {expected.call().keep(),
           left == 0 ? absl::InfiniteDuration() : absl::Microseconds(left),
           expected.call().trace_id()});
    }
    if (expected.has_end()) {
      // It is written to who has asked for it.
      proto::Frame request;
      request.mutable_array();
      request.set_knows_end(true);
      request.mutable_call()->set_keep(expected.end().kept());
      const std::string body = request.SerializeAsString();
      script->incoming.push_back(
          {static_cast<char>(body.size()) + body, {}, false, 0});
      Message received;
      ASSERT_THAT(channel.ReadCall(received), IsOk());
      expected.set_knows_end(true);
      ASSERT_THAT(channel.WriteEnd(), IsOk());
    } else if (expected.has_array()) {
      const Message message(std::vector<std::string>(
          expected.array().part().begin(), expected.array().part().end()));
      ASSERT_THAT(channel.Write(message), IsOk());
    } else if (expected.has_scalar()) {
      ASSERT_THAT(channel.WriteScalar(expected.scalar()), IsOk());
    } else {
      const proto::Error& error = expected.error();
      ASSERT_THAT(channel.WriteError(
                      MakeError(static_cast<absl::StatusCode>(error.code()),
                                error.reason(), error.text())),
                  IsOk());
    }
    const Varint length = ReadVarint(script->sent);
    ASSERT_GT(length.size, 0u);
    EXPECT_EQ(script->sent.substr(length.size), expected.SerializeAsString());
    EXPECT_EQ(script->sent.size() - length.size, length.value);
  }
}

// Larger than what is copied together, in all places where that may end.
TEST(FrameTest, WritesLargePartsAmongSmallOnes) {
  const Secret password(std::string(300'000, 'p'));
  for (const size_t large : {262'143, 262'144, 1'000'000}) {
    const std::vector<std::vector<std::string>> messages = {
        {std::string(large, 'a')},
        {"small", std::string(large, 'a'), "small"},
        {std::string(large, 'a'), std::string(large, 'b'), ""},
        std::vector<std::string>(7, std::string(100'000, 'c')),
    };
    for (const std::vector<std::string>& parts : messages) {
      proto::Frame expected;
      expected.set_password(std::string(password.Expose()));
      for (const std::string& part : parts) {
        expected.mutable_array()->add_part(part);
      }
      const auto script = std::make_shared<Script>();
      script->most_sent = 100'000;
      MessageChannel channel(std::make_unique<ScriptedTransport>(script));
      channel.PresentPassword(password);
      ASSERT_THAT(channel.Write(Message(parts)), IsOk());
      const Varint length = ReadVarint(script->sent);
      EXPECT_TRUE(script->sent.substr(length.size) ==
                  expected.SerializeAsString());
      EXPECT_EQ(script->sent.size() - length.size, length.value);
    }
  }
}

TEST(FrameTest, AVarintEndsWith64Bits) {
  EXPECT_EQ(ReadVarint("").size, 0u);
  EXPECT_EQ(ReadVarint("\x80").size, 0u);
  const std::string most = std::string(9, '\xff') + "\x01";
  EXPECT_EQ(ReadVarint(most).size, 10u);
  EXPECT_EQ(ReadVarint(most).value, UINT64_MAX);
  EXPECT_EQ(ReadVarint(std::string(9, '\xff') + "\x02").size, 0u);
  EXPECT_EQ(ReadVarint(std::string(10, '\x80')).size, 0u);
  // Longer than it needs to be.
  const std::string five = "\x85" + std::string(8, '\x80') + '\0' + "next";
  EXPECT_EQ(ReadVarint(five).size, 10u);
  EXPECT_EQ(ReadVarint(five).value, 5u);
}

}  // namespace
}  // namespace ward
