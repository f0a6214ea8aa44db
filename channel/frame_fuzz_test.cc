// ParseFrame against protobuf's parser, which is the reference: what the one
// takes says the same to the other. The other way round it need not be: the
// protocol is stricter.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/frame.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/fuzz.h"

namespace {

ward::proto::Frame KnownFields(const ward::proto::Frame& frame) {
  ward::proto::Frame known;
  known.set_descriptors(frame.descriptors());
  known.set_password(frame.password());
  if (frame.has_array()) {
    *known.mutable_array()->mutable_part() = frame.array().part();
  }
  if (frame.has_scalar()) known.set_scalar(frame.scalar());
  if (frame.has_error()) {
    known.mutable_error()->set_code(frame.error().code());
    known.mutable_error()->set_reason(frame.error().reason());
    known.mutable_error()->set_text(frame.error().text());
  }
  if (frame.has_end()) known.mutable_end()->set_kept(frame.end().kept());
  if (frame.has_call()) {
    known.mutable_call()->set_keep(frame.call().keep());
    known.mutable_call()->set_time_left(frame.call().time_left());
    known.mutable_call()->set_trace_id(frame.call().trace_id());
  }
  known.set_knows_end(frame.knows_end());
  return known;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  ward::Frame frame;
  const absl::Status parsed = ward::ParseFrame(body, frame);
  // A field that is not known has it look at all with care.
  ward::Frame same;
  const std::string with_unknown =
      absl::StrCat(std::string_view("\x50\0", 2), body);
  WARD_FUZZ_CHECK(ward::ParseFrame(with_unknown, same) == parsed, parsed);
  ward::proto::Frame reference;
  const bool taken = reference.ParseFromArray(
      size == 0 ? "" : static_cast<const void*>(data),  // It copies from it.
      static_cast<int>(size));
  if (!parsed.ok()) {
    WARD_FUZZ_CHECK(ward::HasReason(parsed, ward::reason::kMalformedFrame),
                    parsed);
    // What protobuf writes of fields that the protocol has, it takes.
    const bool plain = taken && reference.descriptors() <= 253 &&
                       reference.call().trace_id().size() <= 128 &&
                       reference.content_case() != reference.CONTENT_NOT_SET &&
                       KnownFields(reference).SerializeAsString() == body;
    WARD_FUZZ_CHECK(!plain, parsed);
    return 0;
  }
  WARD_FUZZ_CHECK(taken, "protobuf does not take it");
  WARD_FUZZ_CHECK(reference.descriptors() == frame.descriptors,
                  reference.descriptors());
  WARD_FUZZ_CHECK(reference.password() == frame.password.value_or(""),
                  "another password");
  WARD_FUZZ_CHECK(reference.knows_end() == frame.knows_end, "knows_end");
  const ward::CallHeader call = frame.call.value_or(ward::CallHeader());
  WARD_FUZZ_CHECK(reference.has_call() == frame.call.has_value() &&
                      reference.call().keep() == call.keep &&
                      reference.call().time_left() == call.time_left &&
                      reference.call().trace_id() == call.trace_id,
                  "another call");
  std::vector<std::string> parts;
  for (ward::EncodedParts in(frame); in.left() > 0;) {
    parts.emplace_back(in.Next());
  }
  WARD_FUZZ_CHECK(parts.size() == frame.encoded_part_count, parts.size());
  switch (frame.content) {
    case ward::Frame::Content::kArray:
      WARD_FUZZ_CHECK(reference.has_array(), "no array");
      WARD_FUZZ_CHECK(
          parts == std::vector<std::string>(reference.array().part().begin(),
                                            reference.array().part().end()),
          "other parts");
      break;
    case ward::Frame::Content::kScalar:
      WARD_FUZZ_CHECK(
          reference.has_scalar() && reference.scalar() == frame.scalar,
          "another scalar");
      break;
    case ward::Frame::Content::kError:
      WARD_FUZZ_CHECK(reference.has_error() &&
                          reference.error().reason() == frame.error.reason &&
                          reference.error().text() == frame.error.text,
                      "another error");
      break;
    case ward::Frame::Content::kEnd:
      WARD_FUZZ_CHECK(
          reference.has_end() && reference.end().kept() == frame.end.kept,
          "another end");
      break;
  }
  return 0;
}
