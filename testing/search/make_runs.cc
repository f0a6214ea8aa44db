#include "ward/testing/search/make_runs.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <ios>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/portfolio.h"
#include "ward/testing/search/simplify.h"
#include "ward/testing/search/worker.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/foreign_threads.h"
#include "ward/testing/simulator/interception_check.h"
#include "ward/testing/simulator/order.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/simulation.h"

namespace ward::testing {
namespace {

constexpr absl::Duration kProgress = absl::Seconds(5);

// What is shown of it has places; what fails again is compared without.
Exploration::Failure Shown(Exploration::Failure failure) {
  failure.what = WithPlaces(failure.what);
  return failure;
}

Exploration::Failure Describe(Worker& worker, const ExploreOptions& options,
                              ReplayCommand command,
                              absl::FunctionRef<void()> body) {
  Exploration::Failure failure;
  failure.run = worker.record().run;
  failure.search = worker.record().search;
  failure.early_sleeps = options.early_sleeps;
  failure.found = worker.record().Taken();
  bool crashed = false;
  const auto take = [&](Worker& from) {
    const Record& record = from.record();
    crashed = record.crashed;
    failure.deviations = record.Taken();
    failure.printed = from.Output();
    failure.stacks = from.Stacks();
    failure.what = absl::StrCat(record.What(), failure.printed);
    failure.transcript.assign(record.transcript.data(), record.transcript_size);
  };
  take(worker);
  failure.hung = worker.record().hung;
  if (failure.hung) return failure;

  Worker again;
  for (const bool warm : {false, true}) {
    if (failure.replayed || (warm && !worker.record().warm)) break;
    failure.warm = warm;
    again.Replay(options, failure.found, warm, body);
    failure.replayed = again.record().HasFailedAs(failure.what);
  }
  if (!failure.replayed) return failure;
  take(again);
  // In case that the test's time is over before it is done.
  const auto announce = [&] {
    std::cout << "Run " << failure.run
              << " failed. While a simpler one is looked for, this runs it "
                 "again:\n  "
              << command(failure) << "\n"
              << WithPlaces(failure.what) << std::endl;
  };
  Simplify(options, body, failure, again, take, announce);
  if (crashed) {
    again.Replay(options, failure.deviations, failure.warm, body,
                 Keep::kAllTheTime);
    if (again.record().HasFailedAs(failure.what)) take(again);
  }
  return failure;
}

// Those that are not there already: a line without an indent begins each.
void AddRemarks(const Record& record, std::string& all,
                std::vector<std::string>& unseen) {
  bool known = false;
  const std::string before = all;
  for (const std::string_view line :
       absl::StrSplit(record.Remarked(), '\n', absl::SkipEmpty())) {
    if (line[0] != ' ') {
      known = absl::StrContains(before, line);
      const std::string_view function = Remarks::Function(line);
      if (!known && !function.empty()) unseen.emplace_back(function);
    }
    if (!known) absl::StrAppend(&all, line, "\n");
  }
}

// How many different ones there are in all of them.
uint64_t CountCourses(const std::vector<std::unique_ptr<Worker>>& workers) {
  std::vector<uint64_t> courses;
  for (const auto& worker : workers) {
    const Record& record = worker->record();
    courses.insert(
        courses.end(), record.course_of.begin(),
        record.course_of.begin() + static_cast<ptrdiff_t>(record.courses));
  }
  std::sort(courses.begin(), courses.end());
  return static_cast<uint64_t>(std::unique(courses.begin(), courses.end()) -
                               courses.begin());
}

// Two places, of which the first is the lower one, and whether they were seen
// in this order, and the other way round.
using SeenPairs =
    absl::btree_map<std::pair<uint32_t, uint32_t>, std::array<bool, 2>>;

// By their places: file and line, or function.
using Names = absl::btree_map<uint32_t, std::string>;

// Of those places that `all` have named.
Names NamesOf(const SeenPairs& pairs, const std::vector<Coverage*>& all) {
  Names names;
  for (const auto& [places, seen] : pairs) {
    names[places.first];
    names[places.second];
  }
  for (const Coverage* const coverage : all) {
    coverage->ForEachName([&](uint32_t place, const Coverage::Calls& calls) {
      const auto named = names.find(place);
      if (named == names.end() || !named->second.empty()) return;
      for (const uintptr_t returns_to : calls) {
        if (returns_to == 0) break;
        absl::StrAppend(&named->second, PlaceOf(returns_to - 1));
      }
    });
  }
  // All at once. So that each is in a line, something stands before it.
  std::string text;
  for (const auto& [place, calls] : names) {
    absl::StrAppend(&text, "@", calls.empty() ? "?" : "<", calls,
                    calls.empty() ? "\n" : ">\n");
  }
  text = WithPlaces(text);
  auto next = names.begin();
  for (const std::string_view line :
       absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    (next++)->second = line.substr(1);
  }
  return names;
}

// Of the program's file. Another build may have other places.
uint64_t HashOfProgram() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::vector<char> part(size_t{1} << 16);
  uint64_t hash = 0;
  do {
    file.read(part.data(), static_cast<std::streamsize>(part.size()));
    const std::string_view read(part.data(),
                                static_cast<size_t>(file.gcount()));
    hash = 31 * hash + std::hash<std::string_view>{}(read);
  } while (file);
  return hash;
}

// Adds them to a file beside the test's outputs, for tools/ward_pairs.py.
void KeepPairs(const SeenPairs& pairs, const Names& names, bool has_more) {
  const std::string_view folder =
      EnvironmentVariable("TEST_UNDECLARED_OUTPUTS_DIR");
  if (folder.empty()) return;
  static const uint64_t kProgram = HashOfProgram();
  const std::string_view target = EnvironmentVariable("TEST_TARGET");
  std::string text = absl::StrCat("program ", absl::Hex(kProgram), " ",
                                  target.empty() ? "a program" : target, "\n");
  if (has_more) text += "more\n";
  for (const auto& [place, name] : names) {
    absl::StrAppend(&text, "place ", absl::Hex(place), " ", name, "\n");
  }
  const auto order = [&text](uint32_t first, uint32_t second) {
    absl::StrAppend(&text, "order ", absl::Hex(first), " ", absl::Hex(second),
                    "\n");
  };
  for (const auto& [places, seen] : pairs) {
    if (seen[0]) order(places.first, places.second);
    if (seen[1]) order(places.second, places.first);
  }
  const std::string path = absl::StrCat(folder, "/ward_pairs.txt");
  std::ofstream file(path, std::ios::app);
  file << text;
  file.close();
  if (!file) std::cout << "No pairs could be written to " << path << std::endl;
}

// What all runs have seen, as the exploration has it.
void AddCoverage(Worker& dull,
                 const std::vector<std::unique_ptr<Worker>>& workers,
                 Exploration& exploration) {
  std::vector<Coverage*> all = {&dull.record().coverage};
  for (const auto& worker : workers) {
    all.push_back(&worker->record().coverage);
  }
  SeenPairs pairs;
  for (const Coverage* const coverage : all) {
    exploration.has_more_pairs |= coverage->is_full();
    coverage->ForEach([&pairs](uint32_t first, uint32_t second) {
      if (first == second) return;
      pairs[std::minmax(first, second)][first < second ? 0 : 1] = true;
    });
  }
  exploration.pairs = pairs.size();
  const bool tells = TellsPairs();
  const Names names = tells ? NamesOf(pairs, all) : Names();
  // Other calls may have led to the same lines.
  std::set<std::string> lines;
  for (const auto& [places, seen] : pairs) {
    if (seen[0] && seen[1]) {
      ++exploration.pairs_in_both_orders;
    } else if (tells) {
      const std::string& lower = names.at(places.first);
      const std::string& higher = names.at(places.second);
      lines.insert(absl::StrCat(seen[0] ? lower : higher, " before ",
                                seen[0] ? higher : lower, "\n"));
    }
  }
  exploration.pairs_in_one_order = absl::StrJoin(lines, "");
  if (tells) KeepPairs(pairs, names, exploration.has_more_pairs);
}

void AddNotTried(const ExploreOptions& options,
                 const std::vector<std::unique_ptr<Worker>>& workers,
                 Exploration& exploration) {
  if (std::any_of(workers.begin(), workers.end(), [](const auto& worker) {
        return worker->record().kept_limits;
      })) {
    exploration.not_tried.emplace_back(
        "time limits, and sleeps beside them, that end while threads could "
        "run (ExploreOptions::delays)");
  }
  if (exploration.sees_accesses && !options.weak_memory) {
    exploration.not_tried.emplace_back(
        "older values of atomic objects (ExploreOptions::weak_memory)");
  }
}

// One for each process that makes runs.
std::vector<int> ProcessorsFor(Search search, uint64_t runs) {
  if (GoesByEarlierRuns(search) || runs == 1) return {sched_getcpu()};
  return Worker::Processors();
}

}  // namespace

Exploration MakeRuns(const ExploreOptions& asked, uint64_t seed,
                     ReplayCommand command, absl::FunctionRef<void()> body) {
  const absl::Time start = absl::Now();
  ExploreOptions options = asked;
  // A single run is the dull one.
  if (options.runs == 1 && options.search == Search::kPortfolio) {
    options.search = Search::kDepthFirst;
  }
  Exploration exploration;
  exploration.sees_accesses = Order::listener() != nullptr;
  if (options.runs == 0) {
    ADD_FAILURE() << "An exploration of no runs shows nothing.";
    return exploration;
  }
  if (Simulation::Current() != nullptr) {
    ADD_FAILURE()
        << "Explore() makes simulations of its own, and is in one here: call "
           "it in a TEST, not in one of a fixture that is a ServerTest, nor "
           "in another exploration's body.";
    return exploration;
  }
  CheckInterception();
  const std::vector<std::string> foreign = ForeignThreads();
  if (!foreign.empty()) {
    absl::StrAppend(&exploration.remarks,
                    "This process has threads that were there before: ",
                    absl::StrJoin(foreign, ", "),
                    ". Runs are made in other processes, which have none of "
                    "them: what waits for one hangs.\n");
  }

  // In shared memory, which outlives the children.
  Worker dull;
  const bool is_dull_alone =
      options.runs == 1 && options.search == Search::kDepthFirst;
  const bool has_dull = options.search != Search::kRandom && !is_dull_alone;
  if (has_dull) dull.MakeProfile(options, body);
  // A time limit might be over when a sleep ends early.
  ExploreOptions of_runs = options;
  of_runs.early_sleeps &= has_dull && !dull.record().kept_limits;
  if (has_dull) {
    AddRemarks(dull.record(), exploration.remarks, exploration.unseen);
    if (dull.record().HasFailed()) {
      exploration.failure = Shown(Describe(dull, of_runs, command, body));
      exploration.runs = 1;
      exploration.time = absl::Now() - start;
      return exploration;
    }
  }

  const std::vector<int> processors =
      ProcessorsFor(options.search, options.runs);
  // Of several runs that fail the first is reported, so that the same search
  // always has the same result: the others go on until they have come as far.
  uint64_t end = options.runs;
  std::vector<std::unique_ptr<Worker>> workers;
  const auto begin = [&](size_t i) {
    Work work;
    work.options = of_runs;
    work.seed = seed;
    work.worker = i;
    work.workers = processors.size();
    work.profile = &dull.record().profile;
    work.dull = &dull.record().coverage;
    work.covers = true;
    work.processor = processors[i];
    workers[i]->Start(work, end, body);
  };
  for (size_t i = 0; i < processors.size(); ++i) {
    workers.push_back(std::make_unique<Worker>());
    uint64_t& run = workers[i]->record().run;
    while (OwnerOf(options.search, run, processors.size()) != i) ++run;
    begin(i);
  }

  const auto count = [&] {
    exploration.runs = 0;
    exploration.skipped = 0;
    exploration.switches = 0;
    exploration.points = 0;
    for (const auto& worker : workers) {
      exploration.runs += worker->record().runs;
      exploration.skipped += worker->record().skipped;
      exploration.switches += worker->record().switches;
      exploration.points += worker->record().points;
    }
    exploration.time = absl::Now() - start;
  };
  absl::Time next_progress = start + kProgress;
  Worker* failed = nullptr;
  while (true) {
    std::vector<pollfd> ends;
    std::vector<size_t> running;
    for (size_t i = 0; i < workers.size(); ++i) {
      if (!workers[i]->running()) continue;
      ends.push_back({workers[i]->pidfd(), POLLIN, 0});
      running.push_back(i);
    }
    if (running.empty()) break;
    poll(ends.data(), ends.size(),
         static_cast<int>(kProgress / absl::Milliseconds(1)));
    for (size_t i = 0; i < running.size(); ++i) {
      if (ends[i].revents == 0) continue;
      Worker& worker = *workers[running[i]];
      worker.Reap();
      if (worker.record().HasFailed()) {
        if (worker.record().run > end) continue;
        failed = &worker;
        end = worker.record().run;
        for (const auto& other : workers) other->record().end = end;
      } else if (worker.record().outcome == Record::Outcome::kRetired) {
        begin(running[i]);
      }
      exploration.exhausted |= worker.record().exhausted;
    }
    if (absl::Now() >= next_progress) {
      next_progress = absl::Now() + kProgress;
      count();
      std::cout << "explored " << exploration.runs << " of " << options.runs
                << " runs in " << absl::ToInt64Seconds(exploration.time)
                << " s, "
                << static_cast<double>(exploration.switches) /
                       absl::ToDoubleSeconds(exploration.time)
                << " switches/s" << std::endl;
    }
  }
  count();
  exploration.schedules = CountCourses(workers);
  AddCoverage(dull, workers, exploration);
  AddNotTried(options, workers, exploration);
  for (const auto& worker : workers) {
    AddRemarks(worker->record(), exploration.remarks, exploration.unseen);
  }
  if (failed != nullptr) {
    exploration.failure = Shown(Describe(*failed, of_runs, command, body));
  }
  return exploration;
}

std::unique_ptr<RunEvents> EventsOf(const ExploreOptions& options,
                                    const Exploration::Failure& failure,
                                    absl::FunctionRef<void()> body) {
  if (!failure.replayed) return nullptr;
  Worker worker;
  auto events = std::make_unique<RunEvents>();
  worker.Replay(options, failure.deviations, failure.warm, body, Keep::kAlways,
                events.get());
  const Record& record = worker.record();
  return record.HasFailed() &&
                 Record::AreAlike(WithPlaces(record.What()), failure.what)
             ? std::move(events)
             : nullptr;
}

}  // namespace ward::testing
