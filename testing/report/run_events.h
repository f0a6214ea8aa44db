// All that happens in a run, for its picture: see picture.h.
//
// It is written down where another process can read it, at once: a run may end
// in a crash.

#ifndef WARD_TESTING_REPORT_RUN_EVENTS_H_
#define WARD_TESTING_REPORT_RUN_EVENTS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ward/testing/report/transcript.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// Shared with processes that are forked later. Of a run with more than 64 MiB
// of events, or 8,192 places in the program, there are the first.
class RunEvents {
 public:
  RunEvents();
  RunEvents(const RunEvents&) = delete;
  RunEvents& operator=(const RunEvents&) = delete;
  ~RunEvents();

  // For another run.
  void Clear();

  // JSON, whole.
  void Add(std::string_view event);

  // The number of the place of `address`, in the program's code.
  // -1 when there are too many.
  int Place(uintptr_t address);

  // The number of `text`, with places in it; -1 when there is too much.
  int Report(std::string_view text);

  // The events alone, and whether there are all of them.
  std::string_view text() const;
  bool is_complete() const;

  // What is under way in each place, the innermost inlined function first. Has
  // the names looked up, once, by another program.
  const std::vector<std::vector<std::string>>& Places() const;
  // The same of reports: these, with their places.
  const std::vector<std::string>& Reports() const;

  // {"complete": true, "places": [["Function() file.cc:12"], ...], "inner":
  // ["Function() file.cc:12", ...], "reports": ["...", ...], "events": [...]}:
  // see RunRecorder for these. The lines of places that are inner, see IsInner,
  // are in that list, too.
  std::string ToJson() const;

 private:
  struct Memory;
  Memory* const memory_;
  mutable std::vector<std::vector<std::string>> places_;
  mutable std::vector<std::string> reports_;
};

// Writes down what it is told of a run, and the assertions that fail, as
// arrays: of a letter and, most of them, the number of the thread that did it.
//
//   ["p", process, name]            a process
//   ["t", thread, process, name]    a thread was started
//   ["e", thread], ["k", thread]    and has ended, or was killed
//   ["a", thread, doing, object, stack]   it comes to a scheduling point;
//                                   a further 1: it has done that already
//   ["w", thread, doing, object, stack]   or begins to wait; a further 1: until
//                                   some time at the latest
//   ["j", thread, other]            what it waits for next is the other's end
//   ["h", thread, descriptor, stack]   it has opened one
//   ["i", thread, words, [descriptor, ...]]
//                                   what it waits for outside, at the end
//   ["g", thread]                   it goes on instead of another one
//   ["l", thread, object, stack]    has a lock; a further 1: shared
//   ["u", thread, object]           has given it back
//   ["d", thread, number, option, words, kind, chosen, [held, ...], stack]
//                                   a decision that is not dull, and, of those
//                                   about threads, who was chosen and who,
//                                   before others, was not; the stack, but of
//                                   who goes on
//   ["c", decisions]                how many there were before what comes next
//   ["o", object, place]            it is in the program's data: see PlaceOf
//   ["m", thread, from, to, words, number]
//                                   what a process says to another, on which
//                                   connection, or -1; or what it does
//   ["n", ns]                       the time since the start
//   ["x", thread, words]            what failed; a further 1: it is stuck
//   ["f", thread, number, object]   the same, by the number of a report; what
//   it
//                                   is about that is locked, or -1
//   ["s", number, words]            the words for `doing`
//   ["b", number, [place, ...]]     a stack, the innermost first
//
// An object is a number, in the order in which they come up, or -1.
class RunRecorder final : public RunListener,
                          public Transcript::Listener,
                          public ::testing::EmptyTestEventListener {
 public:
  // Until its end it is among GoogleTest's listeners.
  explicit RunRecorder(RunEvents& events);
  ~RunRecorder() override;

  void Starts(int thread, int group, std::string_view name) override;
  void Ends(int thread) override;
  void IsKilled(int thread) override;
  void Arrives(int thread, std::string_view doing, const void* object,
               bool after) override;
  void Waits(int thread, std::string_view doing, const void* object,
             bool is_timed) override;
  void Joins(int thread, int other) override;
  void Awaits(int thread, std::string_view what,
              absl::Span<const int> descriptors) override;
  void Opens(int thread, int descriptor) override;
  void GoesOn(int thread) override;
  void IsLocked(const void* object, bool is_shared) override;
  void IsUnlocked(const void* object) override;
  void Chooses(uint32_t number, const Choice& choice, size_t option,
               std::string_view words) override;
  void TimePasses(absl::Duration since_begin) override;
  void IsAtFault(std::string_view what, const void* object) override;
  void IsStuck(std::string_view why) override;

  void IsNamed(pid_t process, std::string_view name) override;
  void Says(pid_t from, pid_t to, int stream, std::string_view what) override;

  void OnTestPartResult(const ::testing::TestPartResult& result) override;

 private:
  void AddStep(std::string_view kind, int thread, std::string_view doing,
               const void* object, bool more);
  // How many there were, if there were more.
  void AddDecisions();
  int Object(const void* object);
  int Words(std::string_view words);
  int Stack();

  RunEvents& events_;
  int running_ = 0;
  absl::flat_hash_set<int> ended_;
  // It has started a thread, since the last point.
  bool has_started_ = false;
  uint32_t decisions_ = 0;
  uint32_t told_decisions_ = 0;
  absl::flat_hash_map<const void*, int> objects_;
  absl::flat_hash_map<const char*, int> words_;
  absl::flat_hash_map<std::string, int> stacks_;
};

// As in JSON, with its quotes, and such that it can stand in a script of HTML.
std::string JsonString(std::string_view text);

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_RUN_EVENTS_H_
