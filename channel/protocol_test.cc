// Holds ward to docs/protocol.md, and the page to ward.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cctype>
#include <cstddef>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/open_null_for_test.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Reason kNoSuchDevice{"NoSuchDevice", absl::StatusCode::kNotFound};

// W3C's own example (w3.org/TR/trace-context).
constexpr std::string_view kTraceparent =
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

std::string ReadPage() {
  std::ifstream file("docs/protocol.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string FromHex(const std::string& digits) {
  EXPECT_EQ(digits.size() % 2, 0u) << digits;
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(
        static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// The bytes of each block that is fenced as "<kind> <name>".
std::map<std::string, std::string> ReadBlocks(std::string_view kind) {
  const std::string fence = absl::StrCat("```", kind, " ");
  std::map<std::string, std::string> blocks;
  std::string* block = nullptr;
  for (const std::string_view line : absl::StrSplit(ReadPage(), '\n')) {
    if (absl::StartsWith(line, fence)) {
      block = &blocks[std::string(line.substr(fence.size()))];
    } else if (absl::StartsWith(line, "```")) {
      block = nullptr;
    } else if (block != nullptr) {
      for (const char c : line.substr(0, line.find('#'))) {
        if (!isspace(static_cast<unsigned char>(c))) block->push_back(c);
      }
    }
  }
  for (auto& [name, bytes] : blocks) bytes = FromHex(bytes);
  return blocks;
}

std::map<std::string, std::string> ReadGolden() { return ReadBlocks("golden"); }

// A channel over what the page says comes, and what it writes.
struct Side {
  std::shared_ptr<Script> script = std::make_shared<Script>();
  MessageChannel channel{std::make_unique<ScriptedTransport>(script)};
};

// One golden frame: how ward writes it, and what ward must read in it.
struct Case {
  std::function<absl::Status(MessageChannel&)> write;
  std::function<void(MessageChannel&)> read;
  size_t descriptors = 0;
  // What the peer has sent before it, if that matters.
  std::string peers = {};
};

void ExpectArray(MessageChannel& channel,
                 const std::vector<std::string>& parts) {
  ASSERT_OK_AND_ASSIGN(const Message message, channel.Read());
  EXPECT_EQ(
      std::vector<std::string>(message.parts().begin(), message.parts().end()),
      parts);
  EXPECT_THAT(message.descriptors(), IsEmpty());
}

void ExpectScalar(MessageChannel& channel, std::string_view expected) {
  std::string scalar = "before";
  ASSERT_THAT(channel.ReadScalar(scalar), IsOk());
  EXPECT_EQ(scalar, expected);
}

constexpr size_t kMemoryBytes = 65'537;

absl::Status WriteBulk(MessageChannel& channel, std::string_view bytes) {
  WARD_ASSIGN_OR_RETURN(BulkBuffer buffer, AllocateBulk(bytes.size()));
  bytes.copy(buffer.bytes().data(), bytes.size());
  WARD_ASSIGN_OR_RETURN(const Bulk bulk, std::move(buffer).Seal());
  return channel.Write(bulk);
}

void ExpectBulk(MessageChannel& channel, std::string_view bytes) {
  ASSERT_OK_AND_ASSIGN(const auto values, channel.ReadUnpacked<Bulk>());
  EXPECT_TRUE(std::get<0>(values).bytes() == bytes);
}

// As the page has a bulk's.
FileDescriptor Memory() {
  FileDescriptor memory(
      memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::string bytes(kMemoryBytes, 'x');
  EXPECT_EQ(write(memory.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS,
                  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
            0);
  return memory;
}

std::map<std::string, Case> Cases() {
  static const Secret* const kPassword = new Secret("open sesame");
  static const FileDescriptor* const kNull = new FileDescriptor(OpenNull());
  const std::string greeting = "Hello Joe Dalton, how are you?";
  return {
      {"hello-call",
       {[](MessageChannel& channel) {
          channel.PresentPassword(*kPassword);
          return channel.Write("hello", "Joe", "Dalton");
        },
        [](MessageChannel& channel) {
          channel.ExpectPassword(*kPassword);
          ExpectArray(channel, {"hello", "Joe", "Dalton"});
        }}},
      {"hello-call-to-its-end",
       {[](MessageChannel& channel) {
          channel.PresentPassword(*kPassword);
          channel.ExpectEnd();
          return channel.Write("hello", "Joe", "Dalton");
        },
        [](MessageChannel& channel) {
          channel.ExpectPassword(*kPassword);
          ExpectArray(channel, {"hello", "Joe", "Dalton"});
        }}},
      {"reply-and-end",
       {[](MessageChannel& channel) { return channel.WriteLast("ok"); },
        [](MessageChannel& channel) {
          channel.ExpectEnd();
          ExpectArray(channel, {"ok"});
          EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
        },
        0, "hello-call-to-its-end"}},
      {"end-alone",
       {[](MessageChannel& channel) { return channel.WriteEnd(); },
        [](MessageChannel& channel) {
          channel.ExpectEnd();
          EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
        },
        0, "hello-call-to-its-end"}},
      {"kept-call",
       {[](MessageChannel& channel) {
          channel.PresentPassword(*kPassword);
          channel.ExpectEnd();
          channel.BeginCall({/*keep=*/true, absl::InfiniteDuration()});
          return channel.Write("hello", "Joe", "Dalton");
        },
        [](MessageChannel& channel) {
          channel.ExpectPassword(*kPassword);
          Message request;
          EXPECT_THAT(channel.ReadCall(request), IsOk());
          EXPECT_TRUE(channel.call().keep);
          EXPECT_EQ(channel.call().time_left, absl::InfiniteDuration());
        }}},
      {"kept-reply",
       {[](MessageChannel& channel) { return channel.WriteLast("ok"); },
        [](MessageChannel& channel) {
          channel.ExpectEnd();
          ExpectArray(channel, {"ok"});
          EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
          EXPECT_TRUE(channel.kept());
        },
        0, "kept-call"}},
      {"later-call",
       {[](MessageChannel& channel) {
          channel.BeginCall({/*keep=*/true, absl::Milliseconds(1500)});
          return channel.Write("hello", "Joe", "Dalton");
        },
        [](MessageChannel& channel) {
          Message request;
          EXPECT_THAT(channel.ReadCall(request), IsOk());
          EXPECT_TRUE(channel.call().keep);
          EXPECT_EQ(channel.call().time_left, absl::Milliseconds(1500));
        }}},
      {"traced-call",
       {[](MessageChannel& channel) {
          channel.BeginCall({/*keep=*/true, absl::InfiniteDuration(),
                             std::string(kTraceparent)});
          return channel.Write("hello", "Joe", "Dalton");
        },
        [](MessageChannel& channel) {
          Message request;
          EXPECT_THAT(channel.ReadCall(request), IsOk());
          EXPECT_TRUE(channel.call().keep);
          EXPECT_EQ(channel.call().trace_id, kTraceparent);
        }}},
      {"hello-reply",
       {[=](MessageChannel& channel) { return channel.Write(greeting, 1234); },
        [=](MessageChannel& channel) {
          ExpectArray(channel, {greeting, "1234"});
        }}},
      {"error",
       {[](MessageChannel& channel) {
          return channel.WriteError(MakeError(kNoSuchDevice, "no eth7"));
        },
        [](MessageChannel& channel) {
          const absl::Status error = channel.Read().status();
          EXPECT_THAT(error, FailsWith(kNoSuchDevice));
          EXPECT_EQ(error.message(), "no eth7");
        }}},
      {"scalar",
       {[](MessageChannel& channel) { return channel.WriteScalar("ward"); },
        [](MessageChannel& channel) { ExpectScalar(channel, "ward"); }}},
      {"empty-scalar",
       {[](MessageChannel& channel) { return channel.WriteScalar(""); },
        [](MessageChannel& channel) { ExpectScalar(channel, ""); }}},
      {"descriptor",
       {[](MessageChannel& channel) { return channel.WriteDescriptor(*kNull); },
        [](MessageChannel& channel) {
          EXPECT_THAT(channel.ReadDescriptor(), IsOk());
        },
        1}},
      {"named-descriptors",
       {[](MessageChannel& channel) {
          Descriptors files;
          files.Add("out", OpenNull());
          files.Add("err", OpenNull());
          return channel.Write(files);
        },
        [](MessageChannel& channel) {
          ASSERT_OK_AND_ASSIGN(Message message, channel.Read());
          ASSERT_OK_AND_ASSIGN(const auto values,
                               message.Unpack<Descriptors>());
          EXPECT_THAT(std::get<0>(values).names(), ElementsAre("out", "err"));
        },
        2}},
      {"bulk-in-its-message",
       {[](MessageChannel& channel) { return WriteBulk(channel, "abc"); },
        [](MessageChannel& channel) { ExpectBulk(channel, "abc"); }}},
      {"bulk-in-memory",
       {[](MessageChannel& channel) {
          return WriteBulk(channel, std::string(kMemoryBytes, 'x'));
        },
        [](MessageChannel& channel) {
          ExpectBulk(channel, std::string(kMemoryBytes, 'x'));
        },
        1}},
      {"empty-array",
       {[](MessageChannel& channel) { return channel.Write(); },
        [](MessageChannel& channel) { ExpectArray(channel, {}); }}},
      {"empty-part",
       {[](MessageChannel& channel) { return channel.Write(""); },
        [](MessageChannel& channel) { ExpectArray(channel, {""}); }}},
  };
}

TEST(ProtocolTest, ThePageAndThisTestHaveTheSameFrames) {
  std::vector<std::string> on_page;
  for (const auto& [name, bytes] : ReadGolden()) on_page.push_back(name);
  std::vector<std::string> tested;
  for (const auto& [name, unused] : Cases()) tested.push_back(name);
  EXPECT_EQ(on_page, tested);
}

TEST(ProtocolTest, WardWritesThePagesBytes) {
  const std::map<std::string, std::string> golden = ReadGolden();
  for (const auto& [name, frame] : Cases()) {
    SCOPED_TRACE(name);
    ASSERT_EQ(golden.count(name), 1u);
    Side side;
    const Secret password("open sesame");
    if (!frame.peers.empty()) {
      side.channel.ExpectPassword(password);
      side.script->incoming.push_back({golden.at(frame.peers), {}, false, 0});
      Message request;
      ASSERT_THAT(side.channel.ReadCall(request), IsOk());
    }
    ASSERT_THAT(frame.write(side.channel), IsOk());
    EXPECT_EQ(absl::BytesToHexString(side.script->sent),
              absl::BytesToHexString(golden.at(name)));
    // A frame, and what goes with it, costs the peer one wake-up.
    EXPECT_EQ(side.script->sends, 1u);
    size_t attached = 0;
    for (const auto& [position, descriptors] : side.script->attached) {
      EXPECT_EQ(position, 0u);
      attached += descriptors.size();
    }
    EXPECT_EQ(attached, frame.descriptors);
  }
}

TEST(ProtocolTest, WardReadsThePagesBytes) {
  const std::map<std::string, std::string> golden = ReadGolden();
  for (const auto& [name, frame] : Cases()) {
    SCOPED_TRACE(name);
    ASSERT_EQ(golden.count(name), 1u);
    Side side;
    Script::Piece piece;
    piece.bytes = golden.at(name);
    for (size_t i = 0; i < frame.descriptors; ++i) {
      piece.descriptors.push_back(Memory());
    }
    side.script->incoming.push_back(std::move(piece));
    frame.read(side.channel);
    EXPECT_THAT(side.channel.Read(), FailsWith(reason::kEndOfStream));
  }
}

// A server from before ends were said skips knows_end, and says nothing of it.
TEST(ProtocolTest, WhoKnowsEndsTakesAServersFramesFromBeforeThem) {
  const std::map<std::string, std::string> golden = ReadGolden();
  for (const std::string reply : {"hello-reply", "scalar", "error"}) {
    SCOPED_TRACE(reply);
    Side side;
    side.channel.ExpectEnd();
    side.script->incoming.push_back({golden.at(reply), {}, false, 0});
    Cases().at(reply).read(side.channel);
    EXPECT_THAT(side.channel.Read(), FailsWith(reason::kEndOfStream));
  }
}

TEST(ProtocolTest, ToWhoKnowsNoEndsNothingIsSaidOfThem) {
  const Secret password("open sesame");
  const std::map<std::string, std::string> golden = ReadGolden();
  Side side;
  side.channel.ExpectPassword(password);
  side.script->incoming.push_back({golden.at("hello-call"), {}, false, 0});
  ASSERT_THAT(side.channel.Read(), IsOk());
  ASSERT_THAT(side.channel.WriteLast("Hello Joe Dalton, how are you?", 1234),
              IsOk());
  ASSERT_THAT(side.channel.WriteEnd(), IsOk());
  EXPECT_EQ(absl::BytesToHexString(side.script->sent),
            absl::BytesToHexString(golden.at("hello-reply")));
}

TEST(ProtocolTest, WardRefusesThePagesBytesForThePagesReasons) {
  const Secret password("open sesame");
  const std::map<std::string, std::string> refused = ReadBlocks("refused");
  EXPECT_THAT(refused, SizeIs(15));
  for (const auto& [title, bytes] : refused) {
    SCOPED_TRACE(title);
    const std::pair<std::string, std::string> reason_and_name =
        absl::StrSplit(title, ' ');
    Side side;
    if (absl::EndsWith(title, "-first")) side.channel.ExpectPassword(password);
    side.script->incoming.push_back({bytes, {}, false, 0});
    const absl::Status status = side.channel.Read().status();
    EXPECT_EQ(ReasonOf(status), reason_and_name.first) << status;
    // For the bytes, not for their end.
    EXPECT_EQ(side.script->receives, 1u);
  }
}

TEST(ProtocolTest, WardTakesThePagesOddBytes) {
  const std::map<std::string, std::string> accepted = ReadBlocks("accepted");
  EXPECT_THAT(accepted, SizeIs(2));
  for (const auto& [name, bytes] : accepted) {
    SCOPED_TRACE(name);
    Side side;
    side.script->incoming.push_back({bytes, {}, false, 0});
    ExpectArray(side.channel, {});
    EXPECT_THAT(side.channel.Read(), FailsWith(reason::kEndOfStream));
  }
}

TEST(ProtocolTest, LengthsOverOneByteAreAsThePageSays) {
  Side side;
  ASSERT_THAT(side.channel.WriteScalar(std::string(128, '\0')), IsOk());
  const std::string header("\x83\x01\x22\x80\x01", 5);
  EXPECT_EQ(side.script->sent, header + std::string(128, '\0'));
  EXPECT_TRUE(absl::StrContains(ReadPage(), "`83 01 22 80 01`"));
}

TEST(ProtocolTest, ThePageListsReasonsWithTheirCodes) {
  const std::string page = ReadPage();
  for (const Reason& reason :
       {reason::kInvalidPassword, reason::kPeerNotAllowed,
        reason::kUnknownMessage, reason::kInvalidArguments,
        reason::kUserCodeThrew, reason::kServerStopping, reason::kServerFull,
        reason::kMalformedFrame, reason::kFrameTooLarge,
        reason::kUnexpectedFrame, reason::kTooManyDescriptors,
        reason::kDescriptorsTruncated, reason::kDescriptorsInFlight,
        reason::kDescriptorTableFull, reason::kTimedOut,
        reason::kSubscriberTooSlow, reason::kOwnersUnknown}) {
    const std::string name = absl::StrCat("`", reason.name, "`");
    const size_t row = page.find("| " + name);
    ASSERT_NE(row, std::string::npos) << name;
    const std::vector<std::string> cells =
        absl::StrSplit(page.substr(row, page.find('\n', row) - row), '|');
    ASSERT_GE(cells.size(), 3u);
    int code = 0;
    EXPECT_TRUE(absl::SimpleAtoi(cells[2], &code)) << name;
    EXPECT_EQ(code, static_cast<int>(reason.code)) << name;
  }
  for (const Reason& reason : {reason::kEndOfStream, reason::kConnectionLost,
                               reason::kCallCut, reason::kCallCancelled}) {
    EXPECT_TRUE(absl::StrContains(page, absl::StrCat("`", reason.name, "`")));
  }
}

// 16777216 as "16,777,216".
std::string WithCommas(size_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t i = digits.size(); i > 3;) digits.insert(i -= 3, ",");
  return digits;
}

TEST(ProtocolTest, ThePageHasTheDefaultLimits) {
  const std::string page = ReadPage();
  const ChannelLimits limits;
  const std::map<std::string, size_t> rows = {
      {"| bytes in a frame's body ", limits.max_frame_bytes},
      {"| parts in a frame ", limits.max_parts},
      {"| descriptors in a frame ", limits.max_descriptors},
      {"| bytes in a trace id ", kMaxTraceIdBytes},
  };
  for (const auto& [row, limit] : rows) {
    const size_t start = page.find(row);
    ASSERT_NE(start, std::string::npos) << row;
    const std::string line = page.substr(start, page.find('\n', start) - start);
    EXPECT_TRUE(
        absl::StrContains(line, absl::StrCat("| ", WithCommas(limit), " ")))
        << line;
  }
}

}  // namespace
}  // namespace ward
