// Whatever comes, and in whichever pieces: FrameReader reads the same frames,
// or finds the same fault; in no more memory than what came takes, and with the
// descriptors that were declared.

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/frame.h"
#include "ward/channel/frame_reader.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/testing/fuzz.h"

namespace ward {
namespace {

constexpr std::string_view kPassword = "the right password";

// More than any input makes frames.
constexpr size_t kMostReads = 5000;

// What an input may add to what it has itself, over and over: enough for a
// scalar that is received where it is to be.
constexpr uint64_t kMostFilling = 17'000;

struct Sent {
  std::string bytes;
  size_t descriptors = 0;
  bool truncated = false;
};

struct Case {
  ChannelLimits limits;
  bool expects_password = false;
  std::vector<Sent> sent;
};

Case Take(testing::FuzzInput& in) {
  Case taken;
  taken.limits.max_frame_bytes =
      std::min<uint64_t>(in.Number(), ChannelLimits::kMostFrameBytes);
  taken.limits.max_parts = in.Byte();
  taken.limits.max_descriptors = in.Byte() % 5;
  taken.expects_password = in.Bool();
  while (!in.empty()) {
    Sent one;
    const uint8_t how = in.Byte();
    if ((how & 1) != 0) one.descriptors = in.Byte() % 7;
    one.truncated = (how & 0xf0) == 0xf0;
    const uint64_t filling = (how & 4) != 0 ? in.Number() : 0;
    one.bytes = (how & 2) != 0 ? in.Rest() : in.String();
    one.bytes.append(std::min(filling, kMostFilling), 'x');
    if (!one.bytes.empty()) taken.sent.push_back(std::move(one));
  }
  return taken;
}

// How the same bytes come.
struct Cut {
  size_t most_received = SIZE_MAX;
  bool interruptions = false;
  // What was sent comes together, up to the end of what brought descriptors, as
  // the kernel has it (unix(7)).
  bool joined = false;
  // For scalars, whose memory may have been used before.
  std::optional<size_t> memory = std::nullopt;
};

// Of long ones there are many.
std::string Shortened(std::string_view text) {
  if (text.size() <= 1000) return std::string(text);
  return absl::StrCat(text.size(), " bytes, ",
                      std::hash<std::string_view>()(text));
}

std::vector<FileDescriptor> Files(size_t count) {
  static const FileDescriptor* const kFile =
      new FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<FileDescriptor> descriptors;
  while (descriptors.size() < count) {
    descriptors.emplace_back(fcntl(kFile->get(), F_DUPFD_CLOEXEC, 0));
  }
  return descriptors;
}

// A line for everything that was read, up to the first error that stays.
std::vector<std::string> ReadAll(const Case& given, const Cut& cut) {
  auto script = std::make_shared<Script>();
  script->most_received = cut.most_received;
  script->interruptions = cut.interruptions;
  for (const Sent& one : given.sent) {
    if (cut.joined && !script->incoming.empty()) {
      Script::Piece& last = script->incoming.back();
      const bool brings = one.descriptors > 0 || one.truncated;
      if (last.descriptors.empty() && !last.truncated) {
        if (brings) {
          last.at = last.bytes.size();
          last.descriptors = Files(one.descriptors);
          last.truncated = one.truncated;
        }
        last.bytes += one.bytes;
        continue;
      }
    }
    Script::Piece piece;
    piece.bytes = one.bytes;
    piece.descriptors = Files(one.descriptors);
    piece.truncated = one.truncated;
    script->incoming.push_back(std::move(piece));
  }
  ScriptedTransport transport(script);
  const Secret password(kPassword);
  FrameReader reader;
  if (given.expects_password) reader.ExpectPassword(password);
  std::vector<std::string> read;
  std::string last_error;
  for (size_t reads = 0;; ++reads) {
    WARD_FUZZ_CHECK(reads < kMostReads, "reading does not come to an end");
    std::vector<FileDescriptor> descriptors;
    std::string memory;
    if (cut.memory.has_value()) memory.reserve(*cut.memory);
    const absl::Status status =
        reader.Read(transport, given.limits.max_frame_bytes, given.limits,
                    absl::InfiniteFuture(), descriptors,
                    cut.memory.has_value() ? &memory : nullptr);
    if (!status.ok()) {
      WARD_FUZZ_CHECK(descriptors.empty(), "descriptors of " << status);
      read.push_back(status.ToString());
      const bool in_step = HasReason(status, reason::kDescriptorsTruncated) ||
                           HasReason(status, reason::kTooManyDescriptors);
      if (in_step) continue;
      // It stays.
      const absl::Status again =
          reader.Read(transport, given.limits.max_frame_bytes, given.limits,
                      absl::InfiniteFuture(), descriptors);
      WARD_FUZZ_CHECK(again == status, again << " after " << status);
      WARD_FUZZ_CHECK(
          !reader.ReadError(transport, given.limits, absl::InfinitePast()),
          "an error frame after " << status);
      break;
    }
    const Frame& frame = reader.frame();
    for (const char byte : frame.password.value_or("")) {
      WARD_FUZZ_CHECK(byte == 0, "a password was not wiped");
    }
    WARD_FUZZ_CHECK(!given.expects_password || reads > 0 ||
                        reader.expected_password() == nullptr,
                    "the first frame was not checked");
    WARD_FUZZ_CHECK(descriptors.size() == frame.descriptors,
                    descriptors.size() << " for " << frame.descriptors);
    WARD_FUZZ_CHECK(descriptors.size() <= given.limits.max_descriptors,
                    descriptors.size() << " descriptors");
    std::vector<std::string> parts;
    for (EncodedParts in(frame); in.left() > 0;) {
      parts.emplace_back(in.Next());
    }
    WARD_FUZZ_CHECK(parts.size() <= given.limits.max_parts, parts.size()
                                                                << " parts");
    read.push_back(absl::StrCat(
        "frame ", frame.descriptors, "|", static_cast<int>(frame.content), "|",
        Shortened(absl::StrJoin(parts, "|")), "|", Shortened(frame.scalar), "|",
        frame.error.code, "|", frame.error.reason, "|",
        Shortened(frame.error.text)));
    const std::string scalar(frame.scalar);
    reader.TakeScalar(memory);
    WARD_FUZZ_CHECK(memory == scalar, "another scalar is taken");
  }
  // Doubled as bytes come: never more than twice what was sent.
  size_t total = 0;
  for (const Sent& one : given.sent) total += one.bytes.size();
  WARD_FUZZ_CHECK(script->largest_room <= std::max({size_t{4096}, 2 * total,
                                                    cut.memory.value_or(0)}),
                  "room for " << script->largest_room << " of " << total);
  return read;
}

// Whether both are the same, up to descriptors that belong to no frame. These
// are noticed sooner or later: the kernel does not say which byte they came
// with.
bool SameOrStray(const std::vector<std::string>& one,
                 const std::vector<std::string>& other) {
  const auto is_stray = [](std::string_view line) {
    return absl::StrContains(line, "the peer's message declares") ||
           absl::StrContains(line, "twice for one message, or for none");
  };
  for (size_t i = 0; i < one.size() && i < other.size(); ++i) {
    if (one[i] == other[i]) continue;
    return is_stray(one[i]) || is_stray(other[i]);
  }
  return one.size() == other.size();
}

}  // namespace
}  // namespace ward

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ward::Cut;
  ward::Files(0);
  const ward::testing::FuzzDescriptorCheck no_descriptor_left;
  ward::testing::FuzzInput in(data, size);
  const size_t piece = size_t{1} + in.Byte() % 16;
  const ward::Case given = ward::Take(in);
  const std::vector<std::string> whole = ward::ReadAll(given, Cut());
  size_t total = 0;
  for (const ward::Sent& one : given.sent) total += one.bytes.size();
  // Up to some thousand pieces.
  const size_t least = size_t{1} + total / 4096;
  for (const Cut& cut :
       {Cut{least, false, false, 0}, Cut{least + piece, true, true},
        Cut{SIZE_MAX, false, true, size_t{1} << 16},
        Cut{size_t{1} + total / 5, true, false, size_t{1} << 16}}) {
    const std::vector<std::string> pieces = ward::ReadAll(given, cut);
    WARD_FUZZ_CHECK(ward::SameOrStray(pieces, whole),
                    "in pieces of " << cut.most_received
                                    << (cut.joined ? ", joined" : "") << ":\n"
                                    << absl::StrJoin(pieces, "\n")
                                    << "\n--- whole:\n"
                                    << absl::StrJoin(whole, "\n"));
  }
  return 0;
}
