#include "ward/testing/report/run_events.h"

#include <execinfo.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/report/places.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

constexpr size_t kMostBytes = size_t{1} << 26;
constexpr size_t kMostPlaces = 8192;
constexpr size_t kMostOfReports = size_t{1} << 18;
constexpr int kMostFrames = 32;

// What the linker calls the ends of the program's code and data.
extern "C" const char etext;  // NOLINT(readability-identifier-naming)
extern "C" const char end;    // NOLINT(readability-identifier-naming)

bool IsInProgram(const void* object) {
  return object > &etext && object < &end;
}

}  // namespace

struct RunEvents::Memory {
  std::atomic<size_t> size;
  std::atomic<bool> is_full;
  std::atomic<size_t> places;
  std::array<uintptr_t, kMostPlaces> place;
  // Each with a 0 at its end.
  std::atomic<size_t> reports;
  std::atomic<size_t> size_of_reports;
  std::array<char, kMostOfReports> report;
  std::array<char, kMostBytes> text;
};

// What is not written to takes no memory.
RunEvents::RunEvents()
    : memory_(static_cast<Memory*>(
          mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
  if (memory_ == MAP_FAILED) std::abort();
}

RunEvents::~RunEvents() { munmap(memory_, sizeof(Memory)); }

void RunEvents::Clear() {
  memory_->size = 0;
  memory_->is_full = false;
  memory_->places = 0;
  memory_->reports = 0;
  memory_->size_of_reports = 0;
  places_.clear();
  reports_.clear();
}

void RunEvents::Add(std::string_view event) {
  const size_t size = memory_->size;
  if (memory_->is_full || kMostBytes - size < event.size() + 2) {
    memory_->is_full = true;
    return;
  }
  char* at = memory_->text.data() + size;
  if (size > 0) *at++ = ',';
  at = std::copy(event.begin(), event.end(), at);
  // Only now: the process may end at any instruction.
  memory_->size = static_cast<size_t>(at - memory_->text.data());
}

int RunEvents::Place(uintptr_t address) {
  const size_t places = memory_->places;
  auto* const end = memory_->place.data() + places;
  auto* const found = std::find(memory_->place.data(), end, address);
  if (found != end) return static_cast<int>(found - memory_->place.data());
  if (places == kMostPlaces) return -1;
  *end = address;
  memory_->places = places + 1;
  return static_cast<int>(places);
}

int RunEvents::Report(std::string_view text) {
  const size_t size = memory_->size_of_reports;
  if (kMostOfReports - size <= text.size()) return -1;
  char* const end =
      std::copy(text.begin(), text.end(), memory_->report.data() + size);
  *end = '\0';
  memory_->size_of_reports = size + text.size() + 1;
  return static_cast<int>(memory_->reports++);
}

std::string_view RunEvents::text() const {
  return {memory_->text.data(), memory_->size};
}

bool RunEvents::is_complete() const { return !memory_->is_full; }

const std::vector<std::vector<std::string>>& RunEvents::Places() const {
  if (places_.size() == memory_->places) return places_;
  places_.clear();
  constexpr std::string_view kMark = "\n@";
  std::string text;
  for (size_t i = 0; i < memory_->places; ++i) {
    absl::StrAppend(&text, kMark, "\n<", PlaceOf(memory_->place[i]), ">");
  }
  for (const std::string_view lines :
       absl::StrSplit(WithPlaces(text), kMark, absl::SkipEmpty())) {
    places_.push_back(absl::StrSplit(lines, '\n', absl::SkipEmpty()));
  }
  return places_;
}

const std::vector<std::string>& RunEvents::Reports() const {
  if (reports_.size() == memory_->reports) return reports_;
  constexpr char kEnd = '\0';
  reports_ = absl::StrSplit(
      WithPlaces({memory_->report.data(), memory_->size_of_reports}), kEnd);
  // What comes after the last one's end.
  reports_.resize(memory_->reports);
  return reports_;
}

std::string RunEvents::ToJson() const {
  std::vector<std::string> reports;
  for (const std::string& report : Reports()) {
    reports.push_back(JsonString(report));
  }
  std::vector<std::string> places;
  std::set<std::string> inner;
  for (const std::vector<std::string>& lines : Places()) {
    std::vector<std::string> functions;
    for (const std::string& line : lines) {
      functions.push_back(JsonString(line));
      if (IsInner(line)) inner.insert(functions.back());
    }
    places.push_back(absl::StrCat("[", absl::StrJoin(functions, ","), "]"));
  }
  return absl::StrCat(R"({"complete":)", is_complete() ? "true" : "false",
                      R"(,"places":[)", absl::StrJoin(places, ",\n"),
                      R"(],"inner":[)", absl::StrJoin(inner, ",\n"),
                      R"(],"reports":[)", absl::StrJoin(reports, ",\n"),
                      R"(],"events":[)", text(), "]}");
}

RunRecorder::RunRecorder(RunEvents& events) : events_(events) {
  events_.Clear();
  // The first call of it allocates, and may wait.
  std::array<void*, 1> frame;
  backtrace(frame.data(), 1);
  ::testing::UnitTest::GetInstance()->listeners().Append(this);
}

RunRecorder::~RunRecorder() {
  ::testing::UnitTest::GetInstance()->listeners().Release(this);
}

void RunRecorder::Starts(int thread, int group, std::string_view name) {
  has_started_ = true;
  events_.Add(
      absl::StrCat(R"(["t",)", thread, ",", group, ",", JsonString(name), "]"));
}

void RunRecorder::Ends(int thread) {
  // Who ends the process ends with it, and then returns.
  if (!ended_.insert(thread).second) return;
  events_.Add(absl::StrCat(R"(["e",)", thread, "]"));
}

void RunRecorder::IsKilled(int thread) {
  events_.Add(absl::StrCat(R"(["k",)", thread, "]"));
}

void RunRecorder::Arrives(int thread, std::string_view doing,
                          const void* object, bool after) {
  // Who has started a thread comes to a point after that.
  const bool started = std::exchange(has_started_, false);
  AddStep("a", thread, doing, object, after || started);
}

void RunRecorder::Waits(int thread, std::string_view doing, const void* object,
                        bool is_timed) {
  AddStep("w", thread, doing, object, is_timed);
}

void RunRecorder::Joins(int thread, int other) {
  events_.Add(absl::StrCat(R"(["j",)", thread, ",", other, "]"));
}

void RunRecorder::GoesOn(int thread) {
  running_ = thread;
  events_.Add(absl::StrCat(R"(["g",)", thread, "]"));
}

void RunRecorder::IsLocked(const void* object, bool is_shared) {
  const NoSchedulingPoints quiet;
  const int number = Object(object);
  const int stack = Stack();
  events_.Add(absl::StrCat(R"(["l",)", running_, ",", number, ",", stack,
                           is_shared ? ",1]" : "]"));
}

void RunRecorder::IsUnlocked(const void* object) {
  const NoSchedulingPoints quiet;
  const int number = Object(object);
  events_.Add(absl::StrCat(R"(["u",)", running_, ",", number, "]"));
}

void RunRecorder::Chooses(uint32_t number, const Choice& choice, size_t option,
                          std::string_view words) {
  decisions_ = number + 1;
  if (option == 0) return;
  // Each of those before it would have been chosen rather.
  const auto passed_over =
      choice.threads.subspan(0, choice.threads.empty() ? 0 : option);
  // Other choices than of who goes on are made between two steps.
  const std::string stack =
      choice.kind == ChoiceKind::kThread ? "" : absl::StrCat(",", Stack());
  events_.Add(
      absl::StrCat(R"(["d",)", running_, ",", number, ",", option, ",",
                   JsonString(words), ",", static_cast<int>(choice.kind), ",",
                   choice.threads.empty() ? -1 : choice.threads[option], ",[",
                   absl::StrJoin(passed_over, ","), "]", stack, "]"));
}

void RunRecorder::TimePasses(absl::Duration since_begin) {
  events_.Add(
      absl::StrCat(R"(["n",)", absl::ToInt64Nanoseconds(since_begin), "]"));
}

void RunRecorder::IsAtFault(std::string_view what, const void* object) {
  AddDecisions();
  const int report = events_.Report(what);
  if (report < 0) return;
  const int number = object == nullptr ? -1 : Object(object);
  events_.Add(
      absl::StrCat(R"(["f",)", running_, ",", report, ",", number, "]"));
}

void RunRecorder::Awaits(int thread, std::string_view what,
                         absl::Span<const int> descriptors) {
  events_.Add(absl::StrCat(R"(["i",)", thread, ",", JsonString(what), ",[",
                           absl::StrJoin(descriptors, ","), "]]"));
}

void RunRecorder::Opens(int thread, int descriptor) {
  const int stack = Stack();
  events_.Add(
      absl::StrCat(R"(["h",)", thread, ",", descriptor, ",", stack, "]"));
}

void RunRecorder::IsStuck(std::string_view why) {
  AddDecisions();
  events_.Add(absl::StrCat(R"(["x",)", running_, ",", JsonString(why), ",1]"));
}

void RunRecorder::IsNamed(pid_t process, std::string_view name) {
  events_.Add(absl::StrCat(R"(["p",)", process, ",", JsonString(name), "]"));
}

void RunRecorder::Says(pid_t from, pid_t to, int stream,
                       std::string_view what) {
  // Its two directions are streams of their own:
  // SimulatedEnvironment::StreamOf.
  const int connection = stream < 0 ? -1 : stream / 2;
  events_.Add(absl::StrCat(R"(["m",)", running_, ",", from, ",", to, ",",
                           JsonString(what), ",", connection, "]"));
}

void RunRecorder::OnTestPartResult(const ::testing::TestPartResult& result) {
  if (!result.failed()) return;
  const NoSchedulingPoints quiet;
  AddDecisions();
  events_.Add(
      absl::StrCat(R"(["x",)", running_, ",",
                   JsonString(absl::StrCat(
                       result.file_name() == nullptr ? "?" : result.file_name(),
                       ":", result.line_number(), ": ", result.message())),
                   "]"));
}

void RunRecorder::AddStep(std::string_view kind, int thread,
                          std::string_view doing, const void* object,
                          bool more) {
  AddDecisions();
  const int words = Words(doing);
  const int stack = Stack();
  const int number = object == nullptr ? -1 : Object(object);
  events_.Add(absl::StrCat("[\"", kind, "\",", thread, ",", words, ",", number,
                           ",", stack, more ? ",1]" : "]"));
}

void RunRecorder::AddDecisions() {
  if (decisions_ == told_decisions_) return;
  told_decisions_ = decisions_;
  events_.Add(absl::StrCat(R"(["c",)", decisions_, "]"));
}

int RunRecorder::Object(const void* object) {
  const auto number = static_cast<int>(objects_.size());
  const auto [found, is_new] = objects_.try_emplace(object, number);
  if (is_new && IsInProgram(object)) {
    events_.Add(absl::StrCat(
        R"(["o",)", number, ",",
        JsonString(PlaceOf(reinterpret_cast<uintptr_t>(object))), "]"));
  }
  return found->second;
}

int RunRecorder::Words(std::string_view words) {
  const auto number = static_cast<int>(words_.size());
  const auto [found, is_new] = words_.try_emplace(words.data(), number);
  if (is_new) {
    events_.Add(absl::StrCat(R"(["s",)", number, ",", JsonString(words), "]"));
  }
  return found->second;
}

int RunRecorder::Stack() {
  std::array<void*, kMostFrames> frames;
  const int depth = backtrace(frames.data(), kMostFrames);
  std::string places;
  // The first is this function. Where a call returns to may be another line.
  for (int i = 1; i < depth; ++i) {
    const auto address =
        reinterpret_cast<uintptr_t>(frames[static_cast<size_t>(i)]) - 1;
    absl::StrAppend(&places, i > 1 ? "," : "", events_.Place(address));
  }
  const auto number = static_cast<int>(stacks_.size());
  const auto [found, is_new] = stacks_.try_emplace(places, number);
  if (is_new) {
    events_.Add(absl::StrCat(R"(["b",)", number, ",[", places, "]]"));
  }
  return found->second;
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    // <: "</script>" and "<!--" mean something in HTML. Bytes that are no UTF-8
    // browsers replace.
    if (byte < 0x20 || byte == 0x7f || c == '<' || c == '>' || c == '&') {
      absl::StrAppend(&json, "\\u", absl::Hex(byte, absl::kZeroPad4));
    } else {
      if (c == '"' || c == '\\') json += '\\';
      json += c;
    }
  }
  return json + '"';
}

}  // namespace ward::testing
