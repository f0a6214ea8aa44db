// Frames as they lie in memory: docs/protocol.md, to the byte.
//
// Read and written here and not by protobuf's parser, although they are
// protobuf messages: that one takes what the protocol forbids (a field twice,
// the later of two contents, surplus bits), stores before it can be told not
// to, and copies.

#ifndef WARD_CHANNEL_FRAME_H_
#define WARD_CHANNEL_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"

namespace ward {

// Field numbers, as in proto/frame.proto.
enum FrameField : uint32_t {
  kDescriptorsField = 1,
  kPasswordField = 2,
  kArrayField = 3,
  kScalarField = 4,
  kErrorField = 5,
  kEndField = 7,
  kKnowsEndField = 8,
  kCallField = 9
};
enum ArrayField : uint32_t { kPartField = 1 };
enum ErrorField : uint32_t { kCodeField = 1, kReasonField = 2, kTextField = 3 };
enum EndField : uint32_t { kKeptField = 1 };
enum CallField : uint32_t {
  kKeepField = 1,
  kTimeLeftField = 2,
  kTraceIdField = 3
};

// protobuf's wire types (protobuf.dev/programming-guides/encoding). Groups,
// which have two more, are refused: nobody writes them.
enum WireType : uint32_t {
  kVarintType = 0,
  kFixed64Type = 1,
  kBytesType = 2,
  kFixed32Type = 5
};

// What a frame that begins a call says of it: proto/frame.proto's Call. Borrows
// all bytes.
struct CallHeader {
  bool keep = false;
  uint64_t time_left = 0;
  std::string_view trace_id;
};

// Of W3C's traceparent, which is what most will use, it is more than twice as
// much.
inline constexpr size_t kMaxTraceIdBytes = 128;

// A frame with one of its contents. Borrows all bytes.
struct Frame {
  enum class Content { kArray, kScalar, kError, kEnd };

  struct Error {
    uint64_t code = 0;
    std::string_view reason;
    std::string_view text;
  };

  struct End {
    bool kept = false;
  };

  // By hand: of a constant, GCC makes one `rep stos`, which takes longer than
  // to write the rest of a small frame.
  Frame() {}  // NOLINT(modernize-use-equals-default)

  uint32_t descriptors = 0;
  std::optional<std::string_view> password;
  bool knows_end = false;
  std::optional<CallHeader> call;
  Content content = Content::kArray;

  // An array that is sent; one that was received has them still encoded.
  absl::Span<const std::string_view> parts;
  std::string_view encoded_parts;
  size_t encoded_part_count = 0;

  std::string_view scalar;
  Error error;
  End end;
};

// What went one way over a connection: whole frames, with their lengths and all
// that is around their content, and descriptors.
struct Traffic {
  Traffic& operator+=(const Traffic& other) {
    bytes += other.bytes;
    descriptors += other.descriptors;
    return *this;
  }

  uint64_t bytes = 0;
  uint64_t descriptors = 0;
};

// Has `frame` say what `body`, which is a frame without its length, says.
// kMalformedFrame says what is wrong with it; `frame` is not to be used then.
absl::Status ParseFrame(std::string_view body, Frame& frame);

// The same for a body without its scalar, which lies elsewhere: nor has it tag
// and length of that.
absl::Status ParseFrameAround(std::string_view scalar, std::string_view body,
                              Frame& frame);

// Where in a body a scalar lies.
struct ScalarPlace {
  size_t tag = 0;
  size_t begin = 0;
  size_t size = 0;
};
// Of the one of `body_bytes` that begins with `begun`; none, if it begins with
// anything else than a number of descriptors and a scalar, or that is not to be
// known yet.
std::optional<ScalarPlace> FindScalar(std::string_view begun,
                                      size_t body_bytes);

// The parts of an array that ParseFrame has found, one after the other; as
// internal::UnpackAll wants them.
class EncodedParts {
 public:
  // Borrows what `frame` borrows.
  explicit EncodedParts(const Frame& frame)
      : in_(frame.encoded_parts), left_(frame.encoded_part_count) {}

  size_t left() const { return left_; }

  // Of those that are left.
  std::string_view Next();

  template <typename Value>
  bool Next(Value& value) {
    return internal::FromPart(Next(), value);
  }

 private:
  std::string_view in_;
  size_t left_;
};

// The longest varint of 64 bits: seven to a byte, and one in the last.
inline constexpr size_t kMaxVarintBytes = 10;

struct Varint {
  uint64_t value = 0;
  // How many it takes; 0: `bytes` end before it does, or, with kMaxVarintBytes
  // of them, it is over 64 bits. More than it needs are none of these.
  size_t size = 0;
};
// The one that `bytes` begin with.
Varint ReadLongVarint(std::string_view bytes);
inline Varint ReadVarint(std::string_view bytes) {
  // As nearly all are.
  if (!bytes.empty() && static_cast<uint8_t>(bytes[0]) < 0x80) {
    return {static_cast<uint8_t>(bytes[0]), 1};
  }
  return ReadLongVarint(bytes);
}

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_H_
