#include "ward/testing/explore.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/report/explanation.h"
#include "ward/testing/report/picture.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/doom.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/make_runs.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/scheduler.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// Before the deviations of a run that is not the first of its process.
constexpr std::string_view kWarm = "warm:";

// In bytes; an environment variable may have 128 KiB (execve(2)), and what
// shows a command to a user much less.
constexpr size_t kLongestRun = size_t{32} << 10;

// The command that runs it again. Of several explorations in a test, which one
// it is stands before its deviations.
std::string CommandFor(const Exploration::Failure& failure, int ordinal) {
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string_view target = EnvironmentVariable("TEST_TARGET");
  const std::string deviations = FormatDeviations(failure.deviations);
  if (deviations.size() > kLongestRun) {
    return absl::StrCat("(none: what its ", failure.deviations.size(),
                        " switches and faults take is more than there may be "
                        "in an environment variable)");
  }
  return absl::StrCat(
      "bazel test ", target.empty() ? "<this target>" : target,
      " --test_output=all",
      test == nullptr ? ""
                      : absl::StrCat(" --test_filter=", test->test_suite_name(),
                                     ".", test->name()),
      " --test_env=WARD_REPLAY=", ordinal > 1 ? absl::StrCat(ordinal, ":") : "",
      failure.warm ? kWarm : "", deviations);
}

// Which call of Explore in this test the next one is, from 1 on.
int NextOrdinal() {
  struct Ordinal {
    const ::testing::TestInfo* test;
    int64_t start;
    int number;
  };
  static Ordinal last = {};
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  // With --gtest_repeat the same test comes again, at another time.
  const int64_t start = test == nullptr ? 0 : test->result()->start_timestamp();
  if (last.test != test || last.start != start) last = {test, start, 0};
  return ++last.number;
}

// Of run 0.
uint64_t FirstSeed() {
  const uint64_t base =
      (RunNumber() << 8) + EnvironmentNumber("TEST_SHARD_INDEX", 0);
  return base << 40;
}

uint64_t RunsOf(const ExploreOptions& options) {
  return EnvironmentNumber("WARD_RUNS", options.runs);
}

// As FindFailure.
Exploration Find(ExploreOptions options, int ordinal,
                 absl::FunctionRef<void()> body) {
  options.runs = RunsOf(options);
  return MakeRuns(
      options, FirstSeed(),
      [ordinal](const Exploration::Failure& failure) {
        return CommandFor(failure, ordinal);
      },
      body);
}

// The one run that WARD_REPLAY has, in this process, if it is of this
// exploration.
void ReplayHere(std::string_view replay, const ExploreOptions& options,
                int ordinal, absl::FunctionRef<void()> body) {
  std::string_view rest = replay;
  int of = 1;
  const size_t colon = rest.find(':');
  if (colon != std::string_view::npos && !absl::StartsWith(rest, kWarm)) {
    if (!absl::SimpleAtoi(rest.substr(0, colon), &of)) of = 0;
    rest.remove_prefix(colon + 1);
  }
  const bool warm = absl::ConsumePrefix(&rest, kWarm);
  const std::optional<Deviations> deviations = ParseDeviations(rest);
  if (of < 1 || !deviations.has_value()) {
    FAIL() << "WARD_REPLAY is no list of step=option, as an earlier failure "
              "has printed it: "
           << replay;
  }
  if (of != ordinal) {
    std::cout << "Not replayed: WARD_REPLAY is a run of this test's "
                 "exploration number "
              << of << ", and this is number " << ordinal << std::endl;
    return;
  }
  ReplayStrategy strategy(*deviations);
  const SharedRecord record;
  const auto print = [&record] {
    std::cout << WithPlaces(record->What())
              << std::string_view(record->transcript.data(),
                                  record->transcript_size)
              << std::flush;
  };
  if (warm) MakeDullRun(options, body, *record);
  Run(options, strategy, Keep::kAlways, body, *record, print);
  print();
  EXPECT_FALSE(record->HasFailed()) << "the replayed run fails, see above";
  if (::testing::Test::HasFailure()) return;
  std::cout << "The replayed run did not fail; " << record->deviations << " of "
            << deviations->size() << " deviations came to pass." << std::endl;
}

// What came of making it fail again, in words.
std::string Verdict(const Exploration::Failure& failure, int ordinal) {
  const std::string again =
      absl::StrCat("To see it again:\n  ", CommandFor(failure, ordinal), "\n");
  if (failure.hung) {
    return absl::StrCat(
        "It hung, which takes as long each time: so it was not made simpler, "
        "nor looked for where it was doomed. ",
        again);
  }
  if (failure.replayed) {
    return absl::StrCat(
        "It fails in the same way with ", failure.deviations.size(), " of them",
        failure.warm ? ", and not in the first run of a process, which does "
                       "something for good, such as initialise a static "
                       "variable"
                     : "",
        ". ", again);
  }
  return "Replayed, it did not fail in the same way: something else than its "
         "schedule decides, such as the address of an object, memory that was "
         "never set, what an earlier run has left, or a file.\n";
}

// What was made, none of which has failed: a line.
std::string Summary(const Exploration& exploration) {
  std::string text = absl::StrCat(
      "None of ", exploration.runs, " runs failed: ", exploration.schedules,
      " different schedule", exploration.schedules == 1 ? "" : "s", ", ",
      exploration.points, " scheduling points, ",
      absl::StrFormat("%.1f", absl::ToDoubleSeconds(exploration.time)), " s");
  if (exploration.skipped > 0) {
    absl::StrAppend(&text, "; ", exploration.skipped, " were skipped");
  }
  if (exploration.exhausted) {
    text += "; there are no others within its bounds";
  } else if (exploration.schedules == 1 && exploration.runs > 1) {
    text += "; perhaps nothing was to choose in it";
  }
  if (exploration.pairs > 0) {
    absl::StrAppend(&text, "; ", exploration.pairs_in_both_orders, " of ",
                    exploration.pairs,
                    " pairs of operations on one object were seen in both "
                    "orders",
                    exploration.has_more_pairs
                        ? ", and there were more than are counted"
                        : "");
  }
  std::vector<std::string> unseen = exploration.unseen;
  if (!exploration.sees_accesses) {
    unseen.emplace_back("accesses to memory, atomic ones among them");
  }
  if (!unseen.empty()) {
    absl::StrAppend(&text, "; not seen: ", absl::StrJoin(unseen, "; "));
  }
  if (!exploration.not_tried.empty()) {
    absl::StrAppend(
        &text, "; not tried: ", absl::StrJoin(exploration.not_tried, "; "));
  }
  text += ".\n";
  if (!exploration.pairs_in_one_order.empty()) {
    absl::StrAppend(&text, "In one order alone:\n",
                    exploration.pairs_in_one_order);
  }
  return text;
}

void SkipIfAllWere(const Exploration& exploration) {
  if (exploration.skipped < exploration.runs) return;
  GTEST_SKIP() << "every run of the exploration was skipped";
}

// The failure, and how it came to it.
std::string Told(const Exploration::Failure& failure,
                 const Explanation& explained,
                 std::string_view marked_transcript = "") {
  // What failed before it was stuck comes first.
  std::string text =
      explained.stuck.empty()
          ? absl::StrCat(failure.what, explained.locked, failure.stacks)
          : absl::StrCat(
                failure.what.substr(0, failure.what.find(explained.why)),
                explained.stuck, failure.printed);
  absl::StrAppend(&text, "\n", explained.deviations);
  // Without one, it would be the names of processes that said nothing.
  if (absl::StrContains(absl::StripSuffix(failure.transcript, "\n"), '\n')) {
    absl::StrAppend(
        &text, "\n",
        marked_transcript.empty() ? failure.transcript : marked_transcript);
  }
  return absl::StrCat(text, "\n", explained.steps);
}

// What FindDoom finds; says what failed in case that the test's time is over
// before.
Doom DoomOf(ExploreOptions options, const Exploration::Failure& failure,
            int ordinal, absl::FunctionRef<void()> body) {
  options.runs = RunsOf(options);
  return FindDoom(options, failure, body, [&] {
    std::cout << "Run " << failure.run
              << " failed. While it is looked for where it was doomed, this "
                 "runs it again:\n  "
              << CommandFor(failure, ordinal) << "\n"
              << failure.what << std::endl;
  });
}

std::optional<StepMark> MarkOf(const Doom& doom) {
  if (!doom.is_found()) return std::nullopt;
  return StepMark{doom.decision(), doom.Mark()};
}

// Draws it, beside the test's outputs; says where, or nothing.
std::string Draw(const Exploration::Failure& failure, int ordinal,
                 const RunEvents& events, const Doom& doom) {
  const std::string_view folder =
      EnvironmentVariable("TEST_UNDECLARED_OUTPUTS_DIR");
  const auto* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  if (folder.empty() || test == nullptr) return "";
  const std::string title =
      absl::StrCat(test->test_suite_name(), ".", test->name());
  const std::string name =
      absl::StrCat(absl::StrReplaceAll(title, {{"/", "_"}}),
                   ordinal > 1 ? absl::StrCat(".", ordinal) : "", ".html");
  const std::string path = absl::StrCat(folder, "/", name);
  std::ofstream file(path);
  file << DrawPicture(
      {title, failure.what, CommandFor(failure, ordinal), doom.ToJson()},
      EventsInWords(events));
  file.close();
  if (!file) {
    return absl::StrCat("No picture of it could be written to ", path, "\n");
  }
  std::string_view target = EnvironmentVariable("TEST_TARGET");
  // Where Bazel puts them, whatever it has called the folder until then.
  return absl::ConsumePrefix(&target, "//")
             ? absl::StrCat("A picture of it, for a browser, is ", name,
                            " in\n  bazel-testlogs/",
                            absl::StrReplaceAll(target, {{":", "/"}}),
                            "/test.outputs\n")
             : absl::StrCat("A picture of it, for a browser:\n  ", path, "\n");
}

}  // namespace

Exploration FindFailure(const ExploreOptions& options,
                        absl::FunctionRef<void()> body) {
  return Find(options, 1, body);
}

Exploration Explore(const ExploreOptions& options,
                    absl::FunctionRef<void()> body) {
  const int ordinal = NextOrdinal();
  // Empty for the dull run. NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (const char* const replay = std::getenv("WARD_REPLAY")) {
    ReplayHere(replay, options, ordinal, body);
    return {};
  }
  Exploration exploration = Find(options, ordinal, body);
  if (!exploration.failure.has_value()) {
    if (exploration.runs > 0) {
      std::cout << exploration.remarks << Summary(exploration) << std::flush;
      SkipIfAllWere(exploration);
    }
    return exploration;
  }
  const Exploration::Failure& failure = *exploration.failure;
  const std::unique_ptr<RunEvents> events = EventsOf(options, failure, body);
  const Doom doom = DoomOf(options, failure, ordinal, body);
  ADD_FAILURE()
      << "Run " << failure.run << " (" << NameOf(failure.search) << ", with "
      << failure.found.size() << " switches and faults) failed.\n"
      << Verdict(failure, ordinal)
      << (events == nullptr ? "" : Draw(failure, ordinal, *events, doom))
      << doom.ToText() << "\n"
      << exploration.remarks
      << (events == nullptr
              ? absl::StrCat(failure.what, failure.stacks, "\n",
                             failure.transcript)
              : Told(failure, Explain(*events, MarkOf(doom)), doom.transcript));
  return exploration;
}

std::string ExplainFailure(const ExploreOptions& options,
                           const Exploration::Failure& failure,
                           absl::FunctionRef<void()> body) {
  const std::unique_ptr<RunEvents> events = EventsOf(options, failure, body);
  return events == nullptr ? "" : Told(failure, Explain(*events));
}

uint64_t FingerprintOfRun(const ExploreOptions& options, uint64_t run,
                          absl::FunctionRef<void()> body) {
  const Profile unknown = {};
  const std::unique_ptr<Strategy> strategy =
      MakeStrategy(options, FirstSeed(), {Search::kRandom, run}, unknown);
  const SharedRecord record;
  Run(options, *strategy, Keep::kAlways, body, *record);
  return record->fingerprint;
}

void SchedulingPoint() {
  if (Scheduler* const scheduler = Scheduler::Current()) {
    scheduler->Point("at a SchedulingPoint()");
  }
}

}  // namespace ward::testing
