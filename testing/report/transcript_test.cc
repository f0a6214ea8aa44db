#include "ward/testing/report/transcript.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/proto/frame.pb.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);

std::string Delimited(const proto::Frame& frame) {
  const std::string body = frame.SerializeAsString();
  std::string bytes;
  size_t size = body.size();
  for (; size >= 0x80; size >>= 7) {
    bytes.push_back(static_cast<char>(size | 0x80));
  }
  bytes.push_back(static_cast<char>(size));
  return bytes + body;
}

proto::Frame Array(std::initializer_list<std::string_view> parts) {
  proto::Frame frame;
  frame.mutable_array();
  for (const std::string_view part : parts) {
    frame.mutable_array()->add_part(std::string(part));
  }
  return frame;
}

// Without the spaces at the ends of lines.
std::string Text(const Transcript& transcript) {
  std::vector<std::string> lines = absl::StrSplit(transcript.ToText(), '\n');
  for (std::string& line : lines) absl::StripTrailingAsciiWhitespace(&line);
  return absl::StrJoin(lines, "\n");
}

// What one frame looks like.
std::string Shown(const proto::Frame& frame, size_t descriptors = 0) {
  Transcript transcript;
  transcript.Name(1, "a");
  transcript.Name(2, "b");
  transcript.Bytes(kStart, 1, 1, 2, Delimited(frame), descriptors);
  const std::string text = transcript.ToMermaid();
  constexpr std::string_view kArrow = "->>P2: ";
  const size_t at = text.find(kArrow);
  return at == std::string::npos ? text
                                 : std::string(absl::StripSuffix(
                                       text.substr(at + kArrow.size()), "\n"));
}

Transcript Example() {
  Transcript transcript;
  transcript.Name(1, "test");
  transcript.Name(2, "server");
  transcript.Name(3, "client");
  transcript.Arrow(kStart, 1, 2, "forks");
  proto::Frame request = Array({"hello", "Joe"});
  request.set_password("the right password");
  transcript.Bytes(kStart, 7, 3, 2, Delimited(request), 0);
  transcript.Bytes(kStart + absl::Seconds(90), 8, 2, 3,
                   Delimited(Array({"Hello Joe"})), 1);
  transcript.Event(kStart + absl::Seconds(90), 2, "exited with code 0");
  return transcript;
}

TEST(Transcript, IsADiagramInText) {
  EXPECT_EQ(Text(Example()), &R"(
              test (1)                  server (2)                client (3)
0             | forks                   |                         |
              |------------------------>|                         |
              |                         | "hello", "Joe" (with a password)
              |                         |<------------------------|
1m30s         |                         | "Hello Joe" + 1 descriptor
              |                         |------------------------>|
              |                         * exited with code 0      |
)"[1]);
}

TEST(Transcript, IsADiagramInMermaid) {
  EXPECT_EQ(Example().ToMermaid(), R"(sequenceDiagram
  participant P1 as test (1)
  participant P2 as server (2)
  participant P3 as client (3)
  P1->>P2: forks
  P3->>P2: "hello", "Joe" (with a password)
  P2->>P3: "Hello Joe" + 1 descriptor
  Note over P2: exited with code 0
)");
}

TEST(Transcript, OfNothingIsEmpty) {
  EXPECT_EQ(Text(Transcript()), "\n");
  EXPECT_EQ(Transcript().ToMermaid(), "sequenceDiagram\n");
}

TEST(Transcript, TellsEachKindOfFrame) {
  proto::Frame frame;
  EXPECT_EQ(Shown(frame), "an empty frame");
  EXPECT_EQ(Shown(Array({})), "nothing");
  EXPECT_EQ(Shown(Array({}), 2), "nothing + 2 descriptors");
  EXPECT_EQ(Shown(Array({"", ""})), R"("", "")");
  frame.set_scalar("abc");
  EXPECT_EQ(Shown(frame), R"(scalar "abc" (3 bytes))");
  frame.mutable_end();
  EXPECT_EQ(Shown(frame), "the end");
  frame.mutable_end()->set_kept(true);
  EXPECT_EQ(Shown(frame), "the end (kept)");
  frame.mutable_array()->add_part("wait");
  frame.mutable_call()->set_keep(true);
  EXPECT_EQ(Shown(frame), "\"wait\"");
  frame.mutable_call()->set_time_left(1'500'000);
  EXPECT_EQ(Shown(frame), "\"wait\" (within 1.5s)");
  frame.mutable_call()->set_time_left(~uint64_t{0});
  EXPECT_THAT(Shown(frame), HasSubstr("(within 51"));
  frame.clear_call();
  frame.mutable_error()->set_reason("UnknownMessage");
  frame.mutable_error()->set_text("no such thing");
  EXPECT_EQ(Shown(frame), "error UnknownMessage: no such thing");
}

TEST(Transcript, LeavesPasswordsOut) {
  const Transcript transcript = Example();
  EXPECT_THAT(transcript.ToText(), Not(HasSubstr("right password")));
  EXPECT_THAT(transcript.ToMermaid(), Not(HasSubstr("right password")));
}

TEST(Transcript, EscapesWhatAPeerSends) {
  EXPECT_EQ(Shown(Array({std::string_view("a\n\r\0\x1b\xff\"", 7)})),
            R"("a\n\r\x00\x1b\xff\"")");
  proto::Frame frame;
  frame.mutable_error()->set_reason("bad\nreason");
  frame.mutable_error()->set_text("bad\ttext");
  EXPECT_EQ(Shown(frame), R"(error bad\nreason: bad\ttext)");
  // Both end a statement in Mermaid.
  EXPECT_EQ(Shown(Array({"a;b#c"})), R"("a#59;b#35;c")");
}

TEST(Transcript, KeepsAnEventOnItsLine) {
  Transcript transcript;
  transcript.Name(1, "test");
  transcript.Event(kStart, 1, "log: two\nlines\r");
  EXPECT_EQ(Text(transcript), &R"(
              test (1)
0             * log: two\nlines\r
)"[1]);
}

TEST(Transcript, CutsWhatIsLong) {
  EXPECT_EQ(Shown(Array({std::string(24, 'x')})),
            absl::StrCat("\"", std::string(24, 'x'), "\""));
  EXPECT_EQ(Shown(Array({std::string(25, 'x')})),
            absl::StrCat("\"", std::string(21, 'x'), "...\""));
  EXPECT_EQ(Shown(Array({std::string(1000, '\n')})),
            R"("\n\n\n\n\n\n\n\n\n\n\...")");
  const std::string part(24, 'x');
  const std::string line = Shown(Array({part, part, part, part}));
  EXPECT_EQ(line.size(), 72u);
  EXPECT_THAT(line, ::testing::EndsWith("..."));
}

TEST(Transcript, PutsFramesTogetherThatComeInPieces) {
  const std::string big(300, 'x');
  const std::string bytes = Delimited(Array({"one", big})) +
                            Delimited(Array({})) + Delimited(Array({"two"}));
  const auto course = [&](size_t piece) {
    Transcript transcript;
    transcript.Name(1, "a");
    transcript.Name(2, "b");
    for (size_t at = 0; at < bytes.size(); at += piece) {
      // The other direction, and another connection, do not interfere.
      if (at == 0) {
        transcript.Bytes(kStart, 8, 2, 1, "\x05", 0);
        transcript.Bytes(kStart, 9, 1, 2, "\x80", 0);
      }
      transcript.Bytes(kStart, 7, 1, 2, bytes.substr(at, piece),
                       at == 0 ? 1 : 0);
    }
    return transcript.ToMermaid();
  };
  const std::string whole = course(bytes.size());
  EXPECT_THAT(whole,
              HasSubstr("  P1->>P2: \"one\", \"xxxxxxxxxxxxxxxxxxxxx...\""
                        " + 1 descriptor\n"
                        "  P1->>P2: nothing\n"
                        "  P1->>P2: \"two\"\n"));
  for (const size_t piece : {200u, 100u, 3u, 2u, 1u}) {
    EXPECT_EQ(course(piece), whole) << "in pieces of " << piece;
  }
}

TEST(Transcript, TakesBytesThatAreNoFrames) {
  Transcript transcript;
  transcript.Name(1, "a");
  transcript.Name(2, "b");
  transcript.Bytes(kStart, 1, 1, 2, "\x03\xff\xff\xff", 0);
  transcript.Bytes(kStart, 1, 1, 2, std::string_view("\0", 1), 0);
  EXPECT_THAT(transcript.ToMermaid(),
              HasSubstr("  P1->>P2: 3 bytes that are no frame\n"
                        "  P1->>P2: an empty frame\n"));
  // A length that never ends, and one of 4 GiB.
  transcript.Bytes(kStart, 2, 1, 2, std::string(100, '\xff'), 0);
  transcript.Bytes(kStart, 3, 1, 2,
                   "\xff\xff\xff\xff\x0f"
                   "abc",
                   0);
}

TEST(Transcript, TakesProcessesThatWereNotNamed) {
  Transcript transcript;
  transcript.Name(1, "a");
  transcript.Arrow(kStart, 1, 99, "to nobody");
  transcript.Event(kStart, 99, "nobody acts");
  EXPECT_THAT(transcript.ToText(), HasSubstr("nobody acts"));
}

TEST(Transcript, ShowsTheEndOfALongOne) {
  Transcript transcript;
  transcript.Name(1, "a");
  for (const std::string_view what : {"first", "second", "third"}) {
    transcript.Event(kStart, 1, what);
  }
  EXPECT_THAT(transcript.ToText(3),
              AllOf(HasSubstr("first"), Not(HasSubstr("before these"))));
  EXPECT_THAT(transcript.ToText(2),
              AllOf(HasSubstr("(1 entries before these)"), HasSubstr("second"),
                    HasSubstr("third"), Not(HasSubstr("first"))));
}

TEST(Transcript, HasAFingerprintOfItsCourse) {
  EXPECT_EQ(Example().Fingerprint(), Example().Fingerprint());
  Transcript other = Example();
  other.Event(kStart, 1, "something more");
  EXPECT_NE(other.Fingerprint(), Example().Fingerprint());
}

}  // namespace
}  // namespace ward::testing
