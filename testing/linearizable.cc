#include "ward/testing/linearizable.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/testing/simulator/no_scheduling_points.h"
#include "ward/testing/simulator/scheduler.h"

namespace ward::testing::internal {
namespace {

// --- the search ---

// What a call has in a search. A search in which some may be left out finds an
// order wherever one finds it in which they may not; so that what has none
// then, has none at all.
enum class Part {
  kAbsent,
  // It may have taken effect, with its result, or not.
  kOptional,
  kRequired,
};

enum class Found { kOrder, kNone, kGaveUp };

// Of bits, by a call's slot.
using Slots = absl::InlinedVector<uint64_t, 1>;

// Up to the return of a call: what has taken effect of the calls that have not
// returned by then, and what state that leads to.
struct Position {
  // Index of the return.
  size_t at = 0;
  Slots taken;
  size_t state = 0;

  friend bool operator==(const Position& a, const Position& b) {
    return a.at == b.at && a.state == b.state && a.taken == b.taken;
  }
  template <typename H>
  friend H AbslHashValue(H hash, const Position& position) {
    return H::combine(std::move(hash), position.at, position.taken,
                      position.state);
  }
};

// Where an order cannot go on: the call that is to return next would return
// something else, and no other helps.
struct DeadEnd {
  size_t at;
  size_t state;
  size_t call;
  std::vector<size_t> order;
};

// Of one key. Calls are numbered by their invocations.
class Search {
 public:
  Search(std::vector<Call> calls, StateSpace& states);

  const std::vector<Call>& calls() const { return calls_; }
  // The known ones, as they returned.
  const std::vector<size_t>& returns() const { return returns_; }

  // All calls as they are.
  std::vector<Part> Whole() const;

  // Tries `most_steps` at most. A call takes effect only when one is about to
  // return, and itself, or another after it, needs that: all orders can be had
  // so.
  Found Run(const std::vector<Part>& parts, size_t most_steps,
            std::vector<DeadEnd>* dead_ends = nullptr);

  // Of the last Run: what it took; how far an order came; and one if it was
  // found.
  size_t steps() const { return steps_; }
  size_t furthest() const { return furthest_; }
  const std::vector<size_t>& order() const { return order_; }

  // Whether it has changed some state, in searches so far.
  bool Changes(size_t call) const { return changes_[call]; }

  std::string WouldReturn(size_t state, size_t call) {
    return states_.WouldReturn(state, calls_[call]);
  }

 private:
  static constexpr size_t kMostDeadEnds = 1000;
  static constexpr size_t kOtherResult = static_cast<size_t>(-1);
  static constexpr size_t kNobody = static_cast<size_t>(-1);

  struct Frame {
    Position position;
    // Who took effect to come here.
    size_t call;
    size_t next_choice = 0;
    bool goes_on = false;
  };

  bool Has(const Slots& taken, size_t call) const {
    return (taken[slots_[call] / 64] >> (slots_[call] % 64) & 1) != 0;
  }
  void Flip(Slots& taken, size_t call) const {
    taken[slots_[call] / 64] ^= uint64_t{1} << (slots_[call] % 64);
  }
  size_t After(size_t state, size_t call);

  const std::vector<Call> calls_;
  StateSpace& states_;
  std::vector<size_t> returns_;
  // Of each call, shared by those that are not under way together.
  std::vector<size_t> slots_;
  size_t slot_count_ = 0;
  std::vector<bool> is_read_;
  // At each return, those that are under way, as they are tried: reads, the one
  // that returns, and the others.
  std::vector<std::vector<size_t>> tries_;
  // kOtherResult, or a state. By state and call.
  absl::flat_hash_map<std::pair<size_t, size_t>, size_t> after_;
  std::vector<bool> changes_;
  size_t steps_ = 0;
  size_t furthest_ = 0;
  std::vector<size_t> order_;
};

Search::Search(std::vector<Call> calls, StateSpace& states)
    : calls_(std::move(calls)),
      states_(states),
      slots_(calls_.size()),
      is_read_(calls_.size()),
      changes_(calls_.size()) {
  // Where they return, as numbers that can be compared.
  std::vector<size_t> ends(calls_.size(), Call::kNever);
  for (size_t call = 0; call < calls_.size(); ++call) {
    is_read_[call] = calls_[call].recorded->IsRead();
    if (!calls_[call].known) continue;
    ends[call] = calls_[call].returned;
    returns_.push_back(call);
  }
  std::sort(returns_.begin(), returns_.end(),
            [&](size_t a, size_t b) { return ends[a] < ends[b]; });

  std::vector<size_t> free_slots;
  std::vector<size_t> under_way;
  size_t invoked = 0;
  for (const size_t returned : returns_) {
    for (; invoked < calls_.size() && calls_[invoked].invoked < ends[returned];
         ++invoked) {
      if (free_slots.empty()) free_slots.push_back(slot_count_++);
      slots_[invoked] = free_slots.back();
      free_slots.pop_back();
      under_way.push_back(invoked);
    }
    std::vector<size_t>& tries = tries_.emplace_back(under_way);
    std::stable_sort(tries.begin(), tries.end(), [&](size_t a, size_t b) {
      const auto rank = [&](size_t call) {
        return is_read_[call] ? 0 : call == returned ? 1 : 2;
      };
      return rank(a) < rank(b);
    });
    under_way.erase(std::find(under_way.begin(), under_way.end(), returned));
    free_slots.push_back(slots_[returned]);
  }
}

std::vector<Part> Search::Whole() const {
  std::vector<Part> parts;
  for (const Call& call : calls_) {
    parts.push_back(call.known ? Part::kRequired : Part::kOptional);
  }
  return parts;
}

size_t Search::After(size_t state, size_t call) {
  const auto [found, is_new] = after_.try_emplace({state, call}, kOtherResult);
  if (is_new) {
    const std::optional<size_t> after = states_.After(state, calls_[call]);
    if (after.has_value()) {
      found->second = *after;
      if (*after != state) changes_[call] = true;
    }
  }
  return found->second;
}

Found Search::Run(const std::vector<Part>& parts, size_t most_steps,
                  std::vector<DeadEnd>* dead_ends) {
  steps_ = 0;
  furthest_ = 0;
  order_.clear();
  absl::flat_hash_set<Position> seen;
  std::vector<Frame> path;

  const auto order = [&] {
    std::vector<size_t> calls;
    for (const Frame& frame : path) {
      if (frame.call != kNobody) calls.push_back(frame.call);
    }
    return calls;
  };
  const auto go_to = [&](Position position, size_t call) {
    while (position.at < returns_.size() &&
           parts[returns_[position.at]] == Part::kAbsent) {
      ++position.at;
    }
    furthest_ = std::max(furthest_, position.at);
    if (seen.insert(position).second) {
      path.push_back({std::move(position), call});
    }
  };
  go_to({0, Slots((slot_count_ + 63) / 64), 0}, kNobody);

  while (!path.empty()) {
    // Valid until it goes to another.
    Frame& frame = path.back();
    const Position& position = frame.position;
    if (position.at == returns_.size()) {
      order_ = order();
      return Found::kOrder;
    }
    const size_t returning = returns_[position.at];
    const std::vector<size_t>& tries = tries_[position.at];
    const size_t choice = frame.next_choice++;

    if (Has(position.taken, returning)) {
      if (choice > 0) {
        path.pop_back();
        continue;
      }
      frame.goes_on = true;
      Position next = position;
      ++next.at;
      Flip(next.taken, returning);
      go_to(std::move(next), kNobody);
      continue;
    }
    if (choice < tries.size()) {
      const size_t call = tries[choice];
      if (parts[call] == Part::kAbsent || Has(position.taken, call)) continue;
      if (++steps_ > most_steps) return Found::kGaveUp;
      const size_t state = After(position.state, call);
      if (state == kOtherResult) continue;
      // What changes nothing here, and need not be, may as well be later.
      if (state == position.state && parts[call] == Part::kOptional) continue;
      frame.goes_on = true;
      // What fits and only reads may as well be now as later.
      if (is_read_[call]) frame.next_choice = tries.size() + 1;
      Position next = position;
      next.state = state;
      if (call == returning) {
        ++next.at;
      } else {
        Flip(next.taken, call);
      }
      go_to(std::move(next), call);
      continue;
    }
    if (choice == tries.size() && parts[returning] == Part::kOptional) {
      frame.goes_on = true;
      Position next = position;
      ++next.at;
      go_to(std::move(next), kNobody);
      continue;
    }
    if (choice == tries.size()) continue;
    if (!frame.goes_on && dead_ends != nullptr &&
        (dead_ends->size() < kMostDeadEnds || position.at == furthest_)) {
      if (dead_ends->size() == kMostDeadEnds) dead_ends->pop_back();
      dead_ends->push_back({position.at, position.state, returning, order()});
    }
    path.pop_back();
  }
  return Found::kNone;
}

// --- the smallest part ---

// Takes away as many of `candidates` as it can, in groups that become smaller.
// What cannot go cannot go either when more have gone.
template <typename CanGo>
void TakeAway(absl::Span<const size_t> candidates, CanGo can_go) {
  std::vector<size_t> left(candidates.begin(), candidates.end());
  for (size_t size = left.size(); size > 0; size /= 2) {
    std::vector<size_t> stay;
    for (size_t from = 0; from < left.size(); from += size) {
      const absl::Span<const size_t> group =
          absl::MakeConstSpan(left).subspan(from, size);
      if (!can_go(group)) stay.insert(stay.end(), group.begin(), group.end());
    }
    left = std::move(stay);
  }
}

// Why a history is not linearizable.
class Explanation {
 public:
  // After a whole search that has found none.
  Explanation(Search& search, size_t most_steps)
      : search_(search),
        most_of_one_(std::max(most_steps / 4, 4 * search.steps())),
        left_(2 * most_steps),
        at_(search.furthest()),
        parts_(search.Whole()) {
    CutAfter();
    // Which ones are needed depends on which may go first.
    Explanation other = *this;
    Relax(ReadsFirst());
    other.left_ = left_;
    other.Relax(FirstToLast());
    if (other.With(Part::kRequired).size() < With(Part::kRequired).size()) {
      parts_ = std::move(other.parts_);
      may_be_fewer_ = other.may_be_fewer_;
    }
    left_ = most_steps;
    KeepWhatHelps();
  }

  std::string Text();

 private:
  // As much is shown: of what helps, all or nothing; the last rows; the dead
  // ends that come furthest, and the last calls before each.
  static constexpr size_t kMostHelping = 10;
  static constexpr size_t kMostRows = 50;
  static constexpr size_t kMostDeadEnds = 4;
  static constexpr size_t kMostNamed = 8;

  Found Run(const std::vector<Part>& parts) {
    if (left_ == 0) return Found::kGaveUp;
    const Found found = search_.Run(parts, std::min(most_of_one_, left_));
    left_ -= std::min(left_, search_.steps());
    return found;
  }

  std::vector<size_t> With(Part part) const {
    std::vector<size_t> calls;
    for (size_t call = 0; call < parts_.size(); ++call) {
      if (parts_[call] == part) calls.push_back(call);
    }
    return calls;
  }

  void CutAfter();
  std::vector<size_t> FirstToLast() const;
  std::vector<size_t> ReadsFirst() const;
  void Relax(const std::vector<size_t>& candidates);
  void KeepWhatHelps();
  std::string Timeline(absl::Span<const size_t> shown) const;
  std::string DeadEnds(absl::Span<const size_t> shown);

  Search& search_;
  // Steps, of one search and of all.
  const size_t most_of_one_;
  size_t left_;
  // The return that no order comes past.
  const size_t at_;
  std::vector<Part> parts_;
  bool may_be_fewer_ = false;
};

// What was invoked after that return cannot help, and what returned after it
// need not have been.
void Explanation::CutAfter() {
  const std::vector<Call>& calls = search_.calls();
  const size_t end = calls[search_.returns()[at_]].returned;
  for (size_t call = 0; call < calls.size(); ++call) {
    if (calls[call].invoked > end) {
      parts_[call] = Part::kAbsent;
    } else if (calls[call].known && calls[call].returned > end) {
      parts_[call] = Part::kOptional;
    }
  }
}

// For Relax: all but the one that no order comes past.
std::vector<size_t> Explanation::FirstToLast() const {
  const std::vector<size_t>& returns = search_.returns();
  return {returns.begin(), returns.begin() + static_cast<ptrdiff_t>(at_)};
}
std::vector<size_t> Explanation::ReadsFirst() const {
  std::vector<size_t> calls = FirstToLast();
  std::stable_partition(calls.begin(), calls.end(),
                        [&](size_t call) { return !search_.Changes(call); });
  return calls;
}

// Makes as many optional as it can. To leave them out would not do: without a
// Put, the Get that has seen it cannot be explained either.
void Explanation::Relax(const std::vector<size_t>& candidates) {
  const auto can_go = [&](absl::Span<const size_t> group) {
    std::vector<Part> parts = parts_;
    for (const size_t call : group) parts[call] = Part::kOptional;
    const Found found = Run(parts);
    if (found == Found::kNone) {
      parts_ = std::move(parts);
    } else if (found == Found::kGaveUp && group.size() == 1) {
      may_be_fewer_ = true;
    }
    return found == Found::kNone;
  };
  // Mostly it takes few, and the last; and where there is an order, it is found
  // soon.
  absl::Span<const size_t> left = candidates;
  for (size_t stay = 0; stay < candidates.size(); stay = 2 * stay + 1) {
    const size_t go = candidates.size() - stay;
    if (!can_go(left.first(go))) continue;
    left.remove_prefix(go);
    break;
  }
  TakeAway(left, can_go);
}

// Of those that are optional, leaves out as many as it can, so that without any
// one of the required ones the rest is explained.
void Explanation::KeepWhatHelps() {
  // What it takes, for each of them.
  std::vector<size_t> culprits;
  std::vector<Part> helping(parts_.size(), Part::kAbsent);
  for (const size_t culprit : With(Part::kRequired)) {
    std::vector<Part> parts = parts_;
    parts[culprit] = Part::kAbsent;
    if (Run(parts) != Found::kOrder) continue;
    culprits.push_back(culprit);
    for (const size_t call : search_.order()) helping[call] = parts[call];
  }
  for (const size_t call : With(Part::kOptional)) {
    parts_[call] =
        helping[call] == Part::kOptional ? Part::kOptional : Part::kAbsent;
  }
  TakeAway(With(Part::kOptional), [&](absl::Span<const size_t> group) {
    std::vector<Part> parts = parts_;
    for (const size_t call : group) parts[call] = Part::kAbsent;
    for (const size_t culprit : culprits) {
      parts[culprit] = Part::kAbsent;
      if (Run(parts) != Found::kOrder) return false;
      parts[culprit] = Part::kRequired;
    }
    parts_ = std::move(parts);
    return true;
  });
}

std::string Numbered(size_t row, std::string_view text) {
  return absl::StrCat("(", row + 1, ") ", text);
}

// `text`, at least `width` wide.
std::string Padded(std::string_view text, size_t width) {
  std::string padded(text);
  if (padded.size() < width) padded.append(width - padded.size(), ' ');
  return padded;
}

std::string ResultText(const Call& call) {
  if (call.known) return absl::StrCat("-> ", call.recorded->ShowResult());
  if (call.returned == Call::kNever) return "-> ?";
  return absl::StrCat("-> ? ", call.recorded->ShowResult());
}

std::string Explanation::Timeline(absl::Span<const size_t> shown) const {
  const size_t first = shown.size() - std::min(shown.size(), kMostRows);
  // Of the moments that are shown, in order.
  std::map<size_t, size_t> columns;
  for (const size_t number : shown.subspan(first)) {
    const Call& call = search_.calls()[number];
    columns[call.invoked];
    if (call.known) columns[call.returned];
  }
  size_t width = 0;
  for (auto& [moment, column] : columns) column = 2 * width++;

  std::vector<std::array<std::string, 4>> rows;
  for (size_t row = first; row < shown.size(); ++row) {
    const Call& call = search_.calls()[shown[row]];
    const size_t from = columns[call.invoked];
    std::string bar(from, ' ');
    if (call.known) {
      absl::StrAppend(&bar, "[",
                      std::string(columns[call.returned] - from - 1, '-'), "]");
    } else {
      absl::StrAppend(&bar, "[", std::string(2 * width - from, '-'), "...");
    }
    rows.push_back(
        {absl::StrCat("(", row + 1, ")"), absl::StrCat("thread ", call.thread),
         absl::StrCat(call.recorded->ShowOperation(), " ", ResultText(call)),
         std::move(bar)});
  }
  std::array<size_t, 3> widths = {};
  for (const auto& cells : rows) {
    for (size_t i = 0; i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], cells[i].size());
    }
  }
  std::string text =
      first == 0 ? "" : absl::StrCat("  (", first, " before these)\n");
  for (const auto& cells : rows) {
    text += " ";
    for (size_t i = 0; i < widths.size(); ++i) {
      absl::StrAppend(&text, " ", Padded(cells[i], widths[i]), " ");
    }
    absl::StrAppend(&text, " ", cells.back(), "\n");
  }
  return text;
}

std::string Explanation::DeadEnds(absl::Span<const size_t> shown) {
  std::vector<DeadEnd> dead_ends;
  search_.Run(parts_, most_of_one_, &dead_ends);
  // Those that come furthest first.
  std::stable_sort(dead_ends.begin(), dead_ends.end(),
                   [](const DeadEnd& a, const DeadEnd& b) {
                     return std::make_pair(a.at, a.order.size()) >
                            std::make_pair(b.at, b.order.size());
                   });
  const auto name = [&](size_t call) {
    const auto row = static_cast<size_t>(
        std::find(shown.begin(), shown.end(), call) - shown.begin());
    return Numbered(row, search_.calls()[call].recorded->ShowOperation());
  };
  std::string text;
  for (size_t i = 0; i < std::min(dead_ends.size(), kMostDeadEnds); ++i) {
    const DeadEnd& dead_end = dead_ends[i];
    std::vector<std::string> order;
    size_t others = 0;
    for (const size_t call : dead_end.order) {
      if (std::find(shown.begin(), shown.end(), call) == shown.end()) {
        if (others++ > 0) order.pop_back();
        order.push_back(absl::StrCat(others, " not shown"));
      } else {
        others = 0;
        order.push_back(name(call));
      }
    }
    absl::Span<const std::string> last = order;
    const bool is_long = last.size() > kMostNamed;
    if (is_long) last.remove_prefix(last.size() - kMostNamed);
    absl::StrAppend(
        &text, "  ", order.empty() ? "at first, " : "after ",
        is_long ? "..., " : "", absl::StrJoin(last, ", "),
        order.empty() ? "" : ": ", name(dead_end.call), " would return ",
        search_.WouldReturn(dead_end.state, dead_end.call), ", not ",
        search_.calls()[dead_end.call].recorded->ShowResult(), "\n");
  }
  if (dead_ends.size() > kMostDeadEnds) text += "  and others\n";
  return text;
}

std::string Explanation::Text() {
  std::vector<size_t> shown = With(Part::kRequired);
  const std::vector<size_t> helping = With(Part::kOptional);
  if (helping.size() <= kMostHelping) {
    shown.insert(shown.end(), helping.begin(), helping.end());
    std::sort(shown.begin(), shown.end());
  }
  const size_t left_out = search_.calls().size() - shown.size();
  const std::optional<std::string>& key = search_.calls().front().key;
  const bool has_doubtful =
      std::any_of(shown.begin(), shown.end(),
                  [&](size_t call) { return !search_.calls()[call].known; });
  std::string text = absl::StrCat(
      "in which no order explains ",
      shown.size() == 1 ? "this call" : absl::StrCat("these ", shown.size()),
      key.has_value() ? absl::StrCat(" of key ", *key) : "",
      left_out > 0 ? absl::StrCat(" (", left_out, " more would not help)") : "",
      may_be_fewer_ ? ", which may not be the fewest" : "", ":\n\n");
  absl::StrAppend(&text, Timeline(shown),
                  has_doubtful ? "  ?: it may have taken effect, or not\n" : "",
                  "\nNo order of them comes further than this:\n",
                  DeadEnds(shown));
  return text;
}

Verdict CheckKey(std::vector<Call> calls, StateSpace& states, size_t most_steps,
                 bool explain, bool& gave_up) {
  Search search(std::move(calls), states);
  const Found found = search.Run(search.Whole(), most_steps);
  Verdict verdict;
  gave_up = found == Found::kGaveUp;
  verdict.linearizable = found == Found::kOrder;
  if (!explain || verdict.linearizable) return verdict;
  if (found == Found::kNone) {
    verdict.why = Explanation(search, most_steps).Text();
    return verdict;
  }
  const std::optional<std::string>& key = search.calls().front().key;
  verdict.why = absl::StrCat(
      "whose check was given up after ", most_steps,
      " steps: whether it is linearizable is not known. ",
      key.has_value() ? absl::StrCat("Of key ", *key, " it has ") : "It has ",
      search.calls().size(),
      " calls, and an order was found as far as the return of ",
      search.furthest(),
      " of them. Make fewer calls, or fewer at once; give the model a Key(); "
      "or allow Linearizable() more steps");
  return verdict;
}

}  // namespace

bool MayHaveRun(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return HasReason(status, reason::kServerDied) ||
             HasReason(status, reason::kServerKilled);
  }
}

std::string ShowStatus(const absl::Status& status) {
  if (status.ok()) return "OK";
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                      status.message());
}

size_t CallLog::Invoke(std::unique_ptr<RecordedCall> call) {
  // The order of calls is the schedule's alone.
  const NoSchedulingPoints quiet;
  const Scheduler* const scheduler = Scheduler::Current();
  const absl::MutexLock lock(&mutex_);
  Call& added = calls_.emplace_back();
  added.recorded = call.get();
  added.invoked = now_++;
  // As reports of the simulator have it.
  added.thread = scheduler != nullptr
                     ? scheduler->thread()
                     : threads_
                           .try_emplace(std::this_thread::get_id(),
                                        static_cast<int>(threads_.size()))
                           .first->second;
  recorded_.push_back(std::move(call));
  return calls_.size() - 1;
}

void CallLog::Return(size_t number, bool known) {
  const NoSchedulingPoints quiet;
  const absl::MutexLock lock(&mutex_);
  calls_[number].returned = now_++;
  calls_[number].known = known;
}

std::vector<Call> CallLog::Calls() const {
  const NoSchedulingPoints quiet;
  const absl::MutexLock lock(&mutex_);
  return calls_;
}

Verdict CheckCalls(absl::Span<const Call> calls,
                   absl::FunctionRef<std::unique_ptr<StateSpace>()> make_states,
                   size_t most_steps, bool explain) {
  // The user's model may have been compiled to have some.
  const NoSchedulingPoints quiet;
  const bool has_keys =
      std::all_of(calls.begin(), calls.end(),
                  [](const Call& call) { return call.key.has_value(); });
  // In the order in which they came up.
  std::vector<std::vector<Call>> of_keys;
  absl::flat_hash_map<std::string, size_t> keys;
  for (const Call& call : calls) {
    const size_t key =
        keys.try_emplace(has_keys ? *call.key : "", of_keys.size())
            .first->second;
    if (key == of_keys.size()) of_keys.emplace_back();
    of_keys[key].push_back(call);
    if (!has_keys) of_keys[key].back().key.reset();
  }
  Verdict verdict{/*linearizable=*/true, ""};
  for (std::vector<Call>& of_key : of_keys) {
    bool gave_up = false;
    Verdict its = CheckKey(std::move(of_key), *make_states(), most_steps,
                           explain, gave_up);
    if (its.linearizable) continue;
    // One that is known not to be says more.
    if (!gave_up) return its;
    if (verdict.linearizable) verdict = std::move(its);
  }
  return verdict;
}

}  // namespace ward::testing::internal
