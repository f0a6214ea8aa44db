#include "ward/testing/report/transcript.h"

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "google/protobuf/io/coded_stream.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/hand_over.h"

namespace ward::testing {
namespace {

constexpr size_t kLongestPart = 24;
constexpr size_t kLongestLabel = 72;
constexpr size_t kColumn = 26;
constexpr size_t kMargin = 14;

std::string Cut(std::string text, size_t size) {
  if (text.size() <= size) return text;
  text.resize(size - 3);
  return text + "...";
}

std::string Quoted(std::string_view part) {
  return absl::StrCat(
      "\"",
      Cut(absl::CHexEscape(part.substr(0, kLongestPart + 1)), kLongestPart),
      "\"");
}

std::string Describe(const proto::Frame& frame, size_t descriptors) {
  std::string text;
  switch (frame.content_case()) {
    case proto::Frame::kArray:
      for (const std::string& part : frame.array().part()) {
        absl::StrAppend(&text, text.empty() ? "" : ", ", Quoted(part));
        // A server's options, which may have secrets among them.
        if (frame.array().part(0) == kHandOverName) break;
        if (text.size() > kLongestLabel) break;
      }
      if (text.empty()) text = "nothing";
      break;
    case proto::Frame::kScalar:
      text = absl::StrCat("scalar ", Quoted(frame.scalar()), " (",
                          frame.scalar().size(), " bytes)");
      break;
    case proto::Frame::kError:
      text = absl::StrCat("error ", absl::CHexEscape(frame.error().reason()),
                          ": ", absl::CHexEscape(frame.error().text()));
      break;
    case proto::Frame::kEnd:
      text = frame.end().kept() ? "the end (kept)" : "the end";
      break;
    default:
      text = "an empty frame";
  }
  if (descriptors > 0) {
    absl::StrAppend(&text, " + ", descriptors,
                    descriptors == 1 ? " descriptor" : " descriptors");
  }
  if (!frame.password().empty()) absl::StrAppend(&text, " (with a password)");
  if (frame.call().time_left() > 0) {
    // A peer may say more than an int64_t has.
    const absl::Duration left =
        absl::Microseconds(static_cast<double>(frame.call().time_left()));
    absl::StrAppend(&text, " (within ", absl::FormatDuration(left), ")");
  }
  return Cut(text, kLongestLabel);
}

}  // namespace

void Transcript::Name(pid_t process, std::string_view name) {
  names_.emplace_back(process, std::string(name));
  if (listener_ != nullptr) listener_->IsNamed(process, name);
}

void Transcript::SetListener(Listener& listener) {
  listener_ = &listener;
  for (const auto& [process, name] : names_) listener.IsNamed(process, name);
}

void Transcript::Event(absl::Time time, pid_t process, std::string_view what) {
  Arrow(time, process, process, what);
}

void Transcript::Signal(absl::Time time, pid_t process, int signal) {
  const char* const description = sigdescr_np(signal);  // No real-time ones.
  Event(time, process,
        absl::StrCat("gets signal ", signal, " (",
                     description != nullptr ? description : "real-time", ")"));
}

void Transcript::Arrow(absl::Time time, pid_t from, pid_t to,
                       std::string_view what) {
  heard_.push_back({{time, from, to, std::string(what)}});
  if (listener_ != nullptr) Entries();
}

void Transcript::Bytes(absl::Time time, int stream, pid_t from, pid_t to,
                       std::string_view bytes, size_t descriptors) {
  heard_.push_back({{time, from, to, std::string(bytes)}, stream, descriptors});
  constexpr size_t kMostKept = 1 << 20;
  heard_bytes_ += bytes.size();
  if (heard_bytes_ > kMostKept || listener_ != nullptr) Entries();
}

const std::vector<Transcript::Entry>& Transcript::Entries() const {
  for (Heard& heard : heard_) {
    if (heard.stream != kNone) {
      Understand(heard);
      continue;
    }
    // A line each, whatever a peer has put into a log.
    absl::StrReplaceAll({{"\n", "\\n"}, {"\r", "\\r"}}, &heard.entry.what);
    Add(std::move(heard.entry), kNone);
  }
  heard_.clear();
  heard_bytes_ = 0;
  return entries_;
}

void Transcript::Add(Entry entry, int stream) const {
  if (listener_ != nullptr) {
    listener_->Says(entry.from, entry.to, stream, entry.what);
  }
  entries_.push_back(std::move(entry));
}

void Transcript::Understand(const Heard& sent) const {
  const Entry& entry = sent.entry;
  Stream& state = streams_[{sent.stream, entry.from}];
  state.bytes.append(entry.what);
  state.descriptors += sent.descriptors;
  while (true) {
    google::protobuf::io::CodedInputStream in(
        reinterpret_cast<const uint8_t*>(state.bytes.data()),
        static_cast<int>(state.bytes.size()));
    uint32_t size;
    if (!in.ReadVarint32(&size)) return;
    const auto header = static_cast<size_t>(in.CurrentPosition());
    if (state.bytes.size() - header < size) return;
    proto::Frame frame;
    const bool is_frame = frame.ParseFromArray(state.bytes.data() + header,
                                               static_cast<int>(size));
    Add({entry.time, entry.from, entry.to,
         is_frame ? Describe(frame, state.descriptors)
                  : absl::StrCat(size, " bytes that are no frame")},
        sent.stream);
    state.bytes.erase(0, header + size);
    state.descriptors = 0;
  }
}

std::string Transcript::ToText(size_t most) const {
  const auto column = [this](pid_t process) {
    const auto found = std::find_if(
        names_.begin(), names_.end(),
        [process](const auto& name) { return name.first == process; });
    return kMargin + kColumn * static_cast<size_t>(found - names_.begin());
  };
  std::string bars(kMargin + kColumn * names_.size(), ' ');
  std::string text = bars;
  for (const auto& [process, name] : names_) {
    const std::string title = absl::StrCat(name, " (", process, ")");
    text.replace(column(process), title.size(), title);
    bars[column(process)] = '|';
  }
  const auto overwrite = [](std::string line, size_t at,
                            std::string_view what) {
    line.resize(std::max(line.size(), at + what.size()), ' ');
    line.replace(at, what.size(), what);
    return line;
  };
  const std::vector<Entry>& entries = Entries();
  const absl::Time start =
      entries.empty() ? absl::UnixEpoch() : entries.front().time;
  absl::Duration shown = -absl::InfiniteDuration();
  const size_t left_out = entries.size() - std::min(entries.size(), most);
  if (left_out > 0) {
    absl::StrAppend(&text, "\n(", left_out, " entries before these)");
  }
  for (size_t i = left_out; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    std::string line = bars;
    if (const absl::Duration time = entry.time - start; time != shown) {
      line = overwrite(line, 0, absl::FormatDuration(time));
      shown = time;
    }
    const size_t from = column(entry.from);
    const size_t to = column(entry.to);
    if (from == to) {
      absl::StrAppend(&text, "\n", overwrite(line, from, "* " + entry.what));
      continue;
    }
    const size_t left = std::min(from, to);
    std::string arrow(std::max(from, to) - left - 1, '-');
    (from < to ? arrow.back() : arrow.front()) = from < to ? '>' : '<';
    absl::StrAppend(&text, "\n", overwrite(line, left + 2, entry.what), "\n",
                    overwrite(bars, left + 1, arrow));
  }
  text += "\n";
  return text;
}

std::string Transcript::ToMermaid() const {
  std::string text = "sequenceDiagram\n";
  for (const auto& [process, name] : names_) {
    absl::StrAppend(&text, "  participant P", process, " as ", name, " (",
                    process, ")\n");
  }
  for (const Entry& entry : Entries()) {
    // Both end a statement there.
    const std::string what =
        absl::StrReplaceAll(entry.what, {{"#", "#35;"}, {";", "#59;"}});
    if (entry.from == entry.to) {
      absl::StrAppend(&text, "  Note over P", entry.from, ": ", what, "\n");
    } else {
      absl::StrAppend(&text, "  P", entry.from, "->>P", entry.to, ": ", what,
                      "\n");
    }
  }
  return text;
}

uint64_t Transcript::Fingerprint() const {
  return std::hash<std::string>()(ToText());
}

}  // namespace ward::testing
