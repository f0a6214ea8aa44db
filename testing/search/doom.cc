#include "ward/testing/search/doom.h"

#include <execinfo.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/search/worker.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/simulation.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// See ExploreOptions::doom_runs. No limit is a time: the result is to be the
// same on a machine that is slow.
constexpr uint64_t kFewestRuns = 100;
constexpr uint64_t kMostSteps = 10'000'000;

// If each takes so many steps.
uint64_t MostRuns(const ExploreOptions& options, uint64_t steps) {
  const uint64_t by_steps = kMostSteps / std::max<uint64_t>(steps, 1);
  return std::min(options.doom_runs,
                  std::max(kFewestRuns, std::min(options.runs, by_steps)));
}

// So many ends tell a chance to within 5 in 100, which is for the two that are
// reported.
constexpr uint64_t kMostEnds = 400;

// And so few which of two is the greater one.
constexpr uint64_t kFewestEnds = 4;

// Less than this is no rise worth telling, nor what may well be chance: so many
// standard deviations, as the two points were picked for being far apart.
constexpr double kRise = 0.1;
constexpr double kDeviations = 3;

// Of ends that hang, each of which takes as long as the watchdog's patience.
constexpr int kMostHung = 2;

// When to announce it.
constexpr absl::Duration kLong = absl::Seconds(5);

// Decides as a run that is known, so many times, and then at random.
class EndStrategy final : public Strategy {
 public:
  EndStrategy(const Deviations& deviations, uint32_t decisions, uint64_t end)
      : before_(deviations),
        after_(RandomStrategy::OfRun(uint64_t{decisions} << 32, end)),
        left_(decisions) {}

  size_t Choose(const Choice& choice) override {
    if (left_ == 0) return after_.Choose(choice);
    --left_;
    return before_.Choose(choice);
  }

 private:
  ReplayStrategy before_;
  RandomStrategy after_;
  uint32_t left_;
};

// What the process of a run tells of it.
struct Told {
  uint32_t decisions;
  // Of the one that is asked for. Places are addresses.
  int thread;
  size_t size;
  std::array<char, 1 << 14> text;
};

// Counts decisions, and at one of them says what was decided, and where the
// threads were that it is about; it becomes an entry of the transcript, too.
class Witness final : public RunListener {
 public:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

  Witness(Told& told, uint32_t decision, std::string mark)
      : told_(told), decision_(decision), mark_(std::move(mark)) {
    told_.decisions = 0;
    told_.size = 0;
    // The first call of it allocates, and may wait.
    std::array<void*, 1> frame;
    backtrace(frame.data(), 1);
  }

  void Starts(int thread, int group, std::string_view /*name*/) override {
    Of(thread).group = group;
  }
  void Ends(int /*thread*/) override {}
  void IsKilled(int /*thread*/) override {}
  void Arrives(int thread, std::string_view /*doing*/, const void* /*object*/,
               bool /*after*/) override {
    Note(thread);
  }
  void Waits(int thread, std::string_view /*doing*/, const void* /*object*/,
             bool /*is_timed*/) override {
    Note(thread);
  }
  void Joins(int /*thread*/, int /*other*/) override {}
  void Awaits(int /*thread*/, std::string_view /*what*/,
              absl::Span<const int> /*descriptors*/) override {}
  void Opens(int /*thread*/, int /*descriptor*/) override {}
  void GoesOn(int /*thread*/) override {}
  void IsLocked(const void* /*object*/, bool /*is_shared*/) override {}
  void IsUnlocked(const void* /*object*/) override {}
  void Chooses(uint32_t number, const Choice& choice, size_t option,
               std::string_view words) override;
  void TimePasses(absl::Duration /*since_begin*/) override {}
  void IsAtFault(std::string_view /*what*/, const void* /*object*/) override {}
  void IsStuck(std::string_view /*why*/) override {}

 private:
  struct Thread {
    int group = 0;
    int depth = 0;
    std::array<void*, 32> frames;
  };

  Thread& Of(int thread) { return threads_[thread]; }

  void Note(int thread) {
    if (decision_ == kNone || told_.decisions > decision_) return;
    Thread& at = Of(thread);
    at.depth = backtrace(at.frames.data(), static_cast<int>(at.frames.size()));
  }

  void Tell(std::string_view text) {
    const size_t size = std::min(text.size(), told_.text.size() - told_.size);
    std::copy_n(text.begin(), size, told_.text.data() + told_.size);
    told_.size += size;
  }

  void TellPlace(int thread) {
    const Thread& at = Of(thread);
    if (at.depth == 0) return;
    Tell(absl::StrCat("thread ", thread, ":\n"));
    for (int i = 0; i < at.depth; ++i) {
      // Where a call returns to may be another line.
      const auto address =
          reinterpret_cast<uintptr_t>(at.frames[static_cast<size_t>(i)]) - 1;
      Tell(absl::StrCat("  <", PlaceOf(address), ">\n"));
    }
  }

  Told& told_;
  const uint32_t decision_;
  const std::string mark_;
  std::map<int, Thread> threads_;
};

void Witness::Chooses(uint32_t number, const Choice& choice, size_t option,
                      std::string_view words) {
  told_.decisions = number + 1;
  if (number != decision_) return;
  Tell(absl::StrCat(words, "\n"));
  const bool is_of_thread = choice.kind == ChoiceKind::kThread;
  told_.thread = is_of_thread ? choice.threads[option] : choice.running;
  TellPlace(told_.thread);
  if (!choice.threads.empty()) {
    // Of those that might have been chosen, the one that was in its way.
    const int chosen = choice.threads[option];
    const int other = choice.threads[option == 0 ? 1 : 0];
    if (chosen != told_.thread) TellPlace(chosen);
    TellPlace(other);
  }
  Simulation& simulation = *Simulation::Current();
  simulation.transcript().Event(simulation.scheduler().now(),
                                Of(told_.thread).group, mark_);
}

// Of each thread's stack those of the program's own, the first few.
std::string WithFewPlaces(std::string_view told) {
  constexpr int kFew = 3;
  const std::string text = WithPlaces(told);
  std::vector<std::string_view> lines;
  int places = 0;
  const auto is_empty_thread = [&] {
    return !lines.empty() && lines.back().back() == ':';
  };
  for (const std::string_view line :
       absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    std::string_view place = line;
    if (!absl::ConsumePrefix(&place, "  ")) {
      if (is_empty_thread()) lines.pop_back();
      places = 0;
    } else if (IsInner(place) || ++places > kFew) {
      continue;
    }
    // A file without a line tells nothing.
    lines.push_back(absl::EndsWith(line, ":?") ? line.substr(0, line.rfind(' '))
                                               : line);
  }
  if (is_empty_thread()) lines.pop_back();
  return absl::StrReplaceAll(absl::StrJoin(lines, "\n"),
                             {{"(anonymous namespace)::", ""}});
}

class Finder {
 public:
  Finder(const ExploreOptions& options, const Exploration::Failure& failure,
         absl::FunctionRef<void()> body, absl::FunctionRef<void()> announce)
      : options_(options), failure_(failure), body_(body), announce_(announce) {
    for (const int processor : Worker::Processors()) {
      workers_.push_back({std::make_unique<Worker>(), processor});
    }
  }

  Doom Find();

 private:
  struct Member {
    std::unique_ptr<Worker> worker;
    int processor;
  };
  using Points = absl::btree_map<uint32_t, Doom::Point>;

  // Makes the run again; false if it does not fail again.
  bool Replay(Keep keep, uint32_t decision, std::string mark);

  bool FailsAlike(const Record& record);

  // Shares out the runs, of which each takes so many steps, about.
  void Plan(uint64_t steps);

  // Has so many ends at `decisions`, if there are runs left for that.
  void Sample(uint32_t decisions, uint64_t ends);
  void MakeEnds(Doom::Point& point, uint64_t count);

  // The same of new ones: those that there were do not count any more, unless
  // the new ones are too few. Whether they are enough.
  bool SampleAnew(uint32_t decisions, uint64_t ends);

  // Samples two neighbours anew, and has them among those to be reported;
  // false if they are already, or there are no runs left for that.
  bool Report(Points::const_iterator from);

  // Between which two neighbours, of which it returns the first, it rises most.
  Points::const_iterator Steepest() const;

  // Whether it is more likely to fail at `to`, beyond doubt.
  bool IsRise(const Doom::Point& from, const Doom::Point& to) const;

  // Samples where it rises most, until that is one decision.
  void Narrow();

  bool IsSpent() const {
    return left_ == 0 || hung_ >= kMostHung ||
           (steps_ >= most_steps_ && ends_ >= kFewestRuns);
  }

  const ExploreOptions& options_;
  const Exploration::Failure& failure_;
  const absl::FunctionRef<void()> body_;
  const absl::FunctionRef<void()> announce_;
  const absl::Time start_ = absl::Now();
  bool announced_ = false;
  std::vector<Member> workers_;
  const Shared<Told> told_;
  // By their first lines.
  std::map<std::string, bool> alike_;
  // By their decisions; and how many ends were made there.
  Points points_;
  absl::btree_map<uint32_t, uint64_t> made_;
  // The two that come before and after what may doom it, of which one is to be
  // reported.
  std::vector<std::pair<Doom::Point, Doom::Point>> rises_;
  uint32_t all_ = 0;
  uint64_t left_ = 0;
  // How many ends the points have that are reported; and how many steps all may
  // take, until these are made.
  uint64_t for_report_ = 0;
  uint64_t most_steps_ = kMostSteps - 2 * kMostSteps / 5;
  // In all, and what the ends among them took.
  uint64_t runs_ = 0;
  uint64_t ends_ = 0;
  uint64_t steps_ = 0;
  int hung_ = 0;
  uint64_t looped_ = 0;
};

bool Finder::Replay(Keep keep, uint32_t decision, std::string mark) {
  Witness witness(*told_, decision, std::move(mark));
  Worker& worker = *workers_[0].worker;
  worker.Replay(options_, failure_.deviations, failure_.warm, body_, keep,
                nullptr, &witness);
  ++runs_;
  return FailsAlike(worker.record());
}

bool Finder::FailsAlike(const Record& record) {
  if (!record.HasFailed()) return false;
  const std::string_view what = record.What();
  const std::string first_line(what.substr(0, what.find('\n')));
  const auto [known, is_new] = alike_.try_emplace(first_line, false);
  if (is_new) {
    // The failure's has places, which others are asked for.
    known->second = Record::AreAlike(WithPlaces(first_line), failure_.what);
  }
  return known->second;
}

void Finder::Plan(uint64_t steps) {
  // Of those that are not the first of a process, each takes another one.
  const uint64_t runs = MostRuns(options_, steps) / (failure_.warm ? 2 : 1);
  left_ = runs - std::min(runs, ends_);
  for_report_ = std::min(kMostEnds, runs / 5);
}

void Finder::Sample(uint32_t decisions, uint64_t ends) {
  Doom::Point& point = points_[decisions];
  point.decisions = decisions;
  // There is but one way to go on.
  if (decisions == all_) {
    point.ends = point.failed = 1;
    return;
  }
  while (point.ends < ends && !IsSpent()) {
    // Whether there are steps left is asked when all of these are made, however
    // many workers do that.
    const uint64_t steps = ends_ == 0 ? 0 : steps_ / ends_;
    const uint64_t by_steps = (most_steps_ - std::min(most_steps_, steps_)) /
                              std::max<uint64_t>(steps, 1);
    MakeEnds(point, std::min({ends - point.ends, left_,
                              std::max(by_steps, kFewestEnds)}));
  }
  if (point.ends == 0) points_.erase(decisions);
}

void Finder::MakeEnds(Doom::Point& point, uint64_t count) {
  const StrategyOf strategy = [&](uint64_t end) {
    return std::make_unique<EndStrategy>(failure_.deviations, point.decisions,
                                         end);
  };
  Work work;
  work.options = options_;
  work.strategy = &strategy;
  work.warm = failure_.warm;
  work.keep = Keep::kNever;
  uint64_t& next = made_[point.decisions];
  const uint64_t end = next + count;
  while (true) {
    std::vector<pollfd> running;
    for (Member& member : workers_) {
      Worker& worker = *member.worker;
      if (!worker.running() && next < end && hung_ < kMostHung) {
        worker.record().run = next++;
        --left_;
        work.processor = member.processor;
        worker.Start(work, next, body_);
      }
      if (worker.running()) running.push_back({worker.pidfd(), POLLIN, 0});
    }
    if (running.empty()) break;
    // NOLINTNEXTLINE(bugprone-unused-return-value): who has ended is asked.
    poll(running.data(), running.size(), -1);
    for (Member& member : workers_) {
      Worker& worker = *member.worker;
      const auto mine = std::find_if(
          running.begin(), running.end(),
          [&](const pollfd& one) { return one.fd == worker.pidfd(); });
      if (!worker.running() || mine == running.end() || mine->revents == 0) {
        continue;
      }
      worker.Reap();
      const Record& record = worker.record();
      ++runs_;
      ++ends_;
      ++point.ends;
      steps_ += record.steps;
      const bool fails_alike = FailsAlike(record);
      if (fails_alike) ++point.failed;
      if (record.hung) ++hung_;
      if (record.looped && !fails_alike) ++looped_;
    }
    if (!announced_ && absl::Now() - start_ > kLong) {
      announced_ = true;
      announce_();
    }
  }
}

bool Finder::SampleAnew(uint32_t decisions, uint64_t ends) {
  const Doom::Point before = points_[decisions];
  points_[decisions] = {};
  Sample(decisions, ends);
  const auto sampled = points_.find(decisions);
  if (sampled != points_.end() &&
      (decisions == all_ || sampled->second.ends >= kFewestEnds)) {
    return true;
  }
  points_[decisions] = before;
  return false;
}

bool Finder::Report(Points::const_iterator from) {
  const uint32_t before = from->first;
  const uint32_t after = std::next(from)->first;
  const bool is_known = std::any_of(
      rises_.begin(), rises_.end(),
      [&](const auto& rise) { return rise.first.decisions == before; });
  most_steps_ = kMostSteps;
  const uint64_t ends = std::min(for_report_, left_ / 2);
  if (is_known || !SampleAnew(before, ends) || !SampleAnew(after, ends)) {
    return false;
  }
  rises_.emplace_back(points_[before], points_[after]);
  return true;
}

Finder::Points::const_iterator Finder::Steepest() const {
  const auto rise = [](Points::const_iterator from) {
    return std::next(from)->second.chance() - from->second.chance();
  };
  auto steepest = points_.begin();
  for (auto from = points_.begin(); std::next(from) != points_.end(); ++from) {
    if (rise(from) > rise(steepest)) steepest = from;
  }
  return steepest;
}

bool Finder::IsRise(const Doom::Point& from, const Doom::Point& to) const {
  // As if each had failed once more, and had not: none of none is not certain.
  const auto variance = [this](const Doom::Point& point) {
    if (point.decisions == all_) return 0.0;
    const auto ends = static_cast<double>(point.ends + 2);
    const double chance = static_cast<double>(point.failed + 1) / ends;
    return chance * (1 - chance) / ends;
  };
  const double rise = to.chance() - from.chance();
  return rise >= kRise &&
         rise > kDeviations * std::sqrt(variance(from) + variance(to));
}

void Finder::Narrow() {
  // The runs are shared out: to a first look at the whole, to where it is
  // looked more closely, half as many decisions each time, and to the two that
  // are reported.
  const uint32_t grid = std::min<uint32_t>(all_, left_ < 500 ? 8 : 16);
  uint64_t looks = grid + 4;
  for (uint32_t apart = all_ / grid; apart > 0; apart /= 2) ++looks;
  const uint64_t ends = std::max<uint64_t>(
      std::min((left_ - 2 * for_report_) / looks, for_report_), kFewestEnds);
  for (uint32_t i = grid; i > 0; --i) {
    Sample(static_cast<uint32_t>(uint64_t{all_} * i / grid), ends);
  }
  Sample(0, ends);
  // Those that were steep by chance are, with other ends, less so.
  while (!IsSpent()) {
    const auto from = Steepest();
    const uint32_t apart = std::next(from)->first - from->first;
    if (apart > 1 && left_ >= 2 * for_report_ + ends) {
      Sample(from->first + apart / 2, ends);
    } else if (!Report(from)) {
      break;
    }
  }
}

Doom Finder::Find() {
  Doom doom;
  if (!Replay(Keep::kNever, Witness::kNone, "")) return doom;
  all_ = told_->decisions;
  const uint64_t steps = workers_[0].worker->record().steps;
  Plan(steps);
  if (left_ < kFewestEnds) return doom;
  const auto always_fails = [this] {
    return points_[0].failed == points_[0].ends;
  };
  Sample(0, kFewestEnds);
  // It may end sooner than others do.
  Plan(std::max(steps, steps_ / std::max<uint64_t>(ends_, 1)));
  if (always_fails()) Sample(0, for_report_);
  const bool is_certain = always_fails();
  if (!is_certain) Narrow();
  doom.runs = runs_;
  doom.hung = static_cast<uint64_t>(hung_);
  doom.looped = looped_;
  if (hung_ >= kMostHung) return doom;
  doom.decisions = all_;
  const auto height = [](const auto& rise) {
    return rise.second.chance() - rise.first.chance();
  };
  const auto steepest = std::max_element(
      rises_.begin(), rises_.end(),
      [&](const auto& a, const auto& b) { return height(a) < height(b); });
  const bool is_found =
      steepest != rises_.end() && IsRise(steepest->first, steepest->second);
  if (is_found) {
    for (const Doom::Point& point : {steepest->first, steepest->second}) {
      points_[point.decisions] = point;
    }
  }
  for (const auto& [decisions, point] : points_) {
    if (is_found && decisions == steepest->first.decisions) {
      doom.before = doom.curve.size();
      doom.after = doom.before + 1;
    }
    doom.curve.push_back(point);
  }
  if (doom.is_found() && Replay(Keep::kAlways, doom.decision(), doom.Mark())) {
    doom.decided = WithFewPlaces({told_->text.data(), told_->size});
    doom.thread = told_->thread;
    const Record& record = workers_[0].worker->record();
    doom.transcript.assign(record.transcript.data(), record.transcript_size);
  }
  doom.runs = runs_;
  return doom;
}

// No more than all, nor less than none, by rounding.
std::string Percent(const Doom::Point& point) {
  const long rounded = std::lround(point.chance() * 100);
  const bool is_some = point.failed > 0 && point.failed < point.ends;
  return absl::StrCat(is_some ? std::clamp(rounded, 1L, 99L) : rounded, " %");
}

// Between those that are known on a straight line.
double ChanceAt(const std::vector<Doom::Point>& curve, double decisions) {
  for (size_t i = 1; i < curve.size(); ++i) {
    const Doom::Point& to = curve[i];
    if (decisions > to.decisions) continue;
    const Doom::Point& from = curve[i - 1];
    const double part = (decisions - from.decisions) /
                        static_cast<double>(to.decisions - from.decisions);
    return from.chance() + part * (to.chance() - from.chance());
  }
  return curve.back().chance();
}

// Of a few lines.
std::string DrawCurve(const Doom& doom) {
  constexpr uint32_t kMostColumns = 60;
  constexpr int kRows = 4;
  const uint32_t all = doom.decisions;
  const uint32_t columns = std::min(all + 1, kMostColumns);
  const auto decisions_at = [&](uint32_t column) {
    return static_cast<double>(all) * column / (columns - 1);
  };
  std::string drawn;
  for (int row = kRows; row > 0; --row) {
    const double least = (row - 0.5) / kRows;
    std::string line;
    for (uint32_t i = 0; i < columns; ++i) {
      line += ChanceAt(doom.curve, decisions_at(i)) >= least ? '#' : ' ';
    }
    const std::string share = absl::StrCat(100 * row / kRows);
    absl::StrAppend(&drawn, "  ", std::string(3 - share.size(), ' '), share,
                    " % |", absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  const std::string margin(7, ' ');
  absl::StrAppend(&drawn, margin, " +", std::string(columns, '-'), "\n");
  std::string axis = absl::StrCat(margin, "  0");
  const auto put = [&](size_t column, std::string_view text) {
    axis.resize(std::max(axis.size() + 1, margin.size() + 2 + column), ' ');
    absl::StrAppend(&axis, text);
  };
  if (doom.is_found()) {
    const uint32_t after = doom.curve[doom.after].decisions;
    put(static_cast<size_t>(uint64_t{after} * (columns - 1) / all),
        absl::StrCat("^", doom.decision()));
  }
  put(columns - 1, absl::StrCat(all, " decisions"));
  return absl::StrCat(drawn, axis, "\n");
}

}  // namespace

std::string_view Doom::Words() const {
  return IsDoom() ? "doomed from here on" : "likelier to fail from here on";
}

std::string Doom::Mark() const {
  return absl::StrCat(Words(), " (decision ", decision(), ")");
}

std::string Doom::Verdict() const {
  if (curve.empty()) return "";
  const Point& none = curve.front();
  if (none.failed == none.ends) {
    return decisions == 0
               ? "There is nothing to decide in it: each run fails."
               : absl::StrCat("Each of ", none.ends,
                              " runs at random fails in the same way: no "
                              "decision dooms it.");
  }
  if (!is_found()) {
    return absl::StrCat("Of ", none.ends, " runs at random ", Percent(none),
                        " fail in the same way, and no decision is seen to "
                        "make that much more.");
  }
  const Point& from = curve[before];
  const Point& to = curve[after];
  const bool is_one = to.decisions == from.decisions + 1;
  return absl::StrCat(
      is_one ? absl::StrCat("Decision ", decision())
             : absl::StrCat("One of the decisions ", from.decisions, " to ",
                            decision()),
      " of ", decisions,
      IsDoom() ? " dooms it: " : " makes it likelier than any other does: ",
      to.decisions == decisions
          ? "after it nothing is left to decide"
          : absl::StrCat("from there on ", Percent(to), " of ", to.ends,
                         " random ends fail in the same way"),
      is_one ? ", before it " : ", before them ", Percent(from), " of ",
      from.ends, ".");
}

std::string Doom::ToText() const {
  if (curve.empty()) {
    return hung == 0
               ? ""
               : absl::StrCat(
                     "Where it was doomed is not known: of ", runs,
                     " runs that were made for that, ", hung,
                     " hung, each for as long as the watchdog's patience.\n");
  }
  std::string text = absl::StrCat(Verdict(), "\n");
  for (const std::string_view line :
       absl::StrSplit(decided, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, "  ", line, "\n");
  }
  if (curve.size() > 1) absl::StrAppend(&text, DrawCurve(*this));
  if (hung + looped > 0) {
    absl::StrAppend(&text, "Of the ", runs, " runs that were made for this, ",
                    hung + looped,
                    " had no end, which is another failure: they hung, or took "
                    "more than ExploreOptions::max_steps.\n");
  }
  return text;
}

std::string Doom::ToJson() const {
  if (curve.empty()) return "null";
  return absl::StrCat(
      R"({"decision":)", is_found() ? static_cast<int64_t>(decision()) : -1,
      R"(,"thread":)", thread, R"(,"mark":)", JsonString(Words()),
      R"(,"says":)", JsonString(absl::StrCat(Verdict(), "\n", decided)),
      R"(,"curve":[)",
      absl::StrJoin(curve, ",",
                    [](std::string* out, const Point& point) {
                      absl::StrAppend(out, "[", point.decisions, ",",
                                      point.ends, ",", point.failed, "]");
                    }),
      "]}");
}

Doom FindDoom(const ExploreOptions& options,
              const Exploration::Failure& failure,
              absl::FunctionRef<void()> body,
              absl::FunctionRef<void()> announce) {
  if (!failure.replayed || failure.hung || options.doom_runs == 0) return {};
  // Its ends have what its search had.
  ExploreOptions of_ends = options;
  of_ends.early_sleeps &= failure.early_sleeps;
  return Finder(of_ends, failure, body, announce).Find();
}

}  // namespace ward::testing
