// ParseFrame against protobuf's parser, which is the reference: what the one
// takes says the same to the other. The other way round it need not be: the
// protocol is stricter.

#ifndef WARD_CHANNEL_FRAME_REFERENCE_FOR_TEST_H_
#define WARD_CHANNEL_FRAME_REFERENCE_FOR_TEST_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/frame.h"
#include "ward/proto/frame.pb.h"

namespace ward {

// What protobuf writes of the fields that the protocol has.
inline std::string KnownFields(const proto::Frame& frame) {
  proto::Frame known;
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
  return known.SerializeAsString();
}

// What ParseFrame has made of a frame, as protobuf would write it.
inline std::string Rewritten(const Frame& frame) {
  proto::Frame known;
  known.set_descriptors(frame.descriptors);
  known.set_password(std::string(frame.password.value_or("")));
  switch (frame.content) {
    case Frame::Content::kArray: {
      proto::Array& array = *known.mutable_array();
      for (EncodedParts in(frame); in.left() > 0;) {
        array.add_part(std::string(in.Next()));
      }
      break;
    }
    case Frame::Content::kScalar:
      known.set_scalar(std::string(frame.scalar));
      break;
    case Frame::Content::kError:
      // protobuf keeps the lower 32 bits of what has more.
      known.mutable_error()->set_code(static_cast<int32_t>(frame.error.code));
      known.mutable_error()->set_reason(std::string(frame.error.reason));
      known.mutable_error()->set_text(std::string(frame.error.text));
      break;
    case Frame::Content::kEnd:
      known.mutable_end()->set_kept(frame.end.kept);
      break;
  }
  if (frame.call.has_value()) {
    known.mutable_call()->set_keep(frame.call->keep);
    known.mutable_call()->set_time_left(frame.call->time_left);
    known.mutable_call()->set_trace_id(std::string(frame.call->trace_id));
  }
  known.set_knows_end(frame.knows_end);
  return known.SerializeAsString();
}

// How ParseFrame takes `body` otherwise than it should; empty if it does not.
inline std::string FaultOfParseFrame(std::string_view body) {
  Frame frame;
  const absl::Status parsed = ParseFrame(body, frame);
  // A field that is not known has it look at all with care.
  Frame same;
  const std::string with_unknown =
      absl::StrCat(std::string_view("\x50\0", 2), body);
  const absl::Status with_care = ParseFrame(with_unknown, same);
  if (with_care != parsed) {
    return absl::StrCat("read with care it is: ", with_care.ToString(),
                        "; otherwise: ", parsed.ToString());
  }
  proto::Frame reference;
  const bool taken = reference.ParseFromArray(
      body.empty() ? "" : body.data(),  // It copies from it.
      static_cast<int>(body.size()));
  if (!parsed.ok()) {
    if (!HasReason(parsed, reason::kMalformedFrame)) return parsed.ToString();
    // What protobuf writes of fields that the protocol has, it takes.
    const bool plain = taken && reference.descriptors() <= 253 &&
                       reference.call().trace_id().size() <= kMaxTraceIdBytes &&
                       reference.content_case() != reference.CONTENT_NOT_SET &&
                       KnownFields(reference) == body;
    return plain ? absl::StrCat("not taken: ", parsed.ToString()) : "";
  }
  if (!taken) return "protobuf does not take it";
  const std::string rewritten = Rewritten(frame);
  if (rewritten != KnownFields(reference)) return "protobuf reads another one";
  if (rewritten != Rewritten(same)) return "read with care it is another one";
  return "";
}

}  // namespace ward

#endif  // WARD_CHANNEL_FRAME_REFERENCE_FOR_TEST_H_
