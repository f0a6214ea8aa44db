// Whether calls that were made at the same time returned what they would have
// returned one after the other, in some order.
//
//   struct Get { std::string key; };  // Each with operator<<, or PrintTo().
//   struct Put { std::string key; int value; };
//
//   // What the server is to do, one call after the other.
//   struct Model {
//     using State = std::map<std::string, int>;
//     int Apply(const State& values, const Get& get) const {
//       const auto found = values.find(get.key);
//       return found == values.end() ? 0 : found->second;
//     }
//     void Apply(State& values, const Put& put) const {
//       values[put.key] = put.value;
//     }
//   };
//
//   Explore({.runs = 10000}, [] {
//     Store store;
//     ASSERT_THAT(store.Start(), IsOk());
//     History<Model> history;
//     const auto get = [&] {
//       return history.Record(Get{"a"},
//                             [&] { return store.Call(kGet, "a"); });
//     };
//     const auto put = [&](int value) {
//       return history.Record(Put{"a", value},
//                             [&] { return store.Call(kPut, "a", value); });
//     };
//     RunAtOnce([&] { EXPECT_THAT(put(1), IsOk()); },
//               [&] { EXPECT_THAT(get(), IsOk()); });
//     EXPECT_THAT(get(), IsOk());
//     EXPECT_THAT(history, Linearizable(Model()));
//     EXPECT_THAT(store.Stop(), IsOk());
//   });
//
// A history is linearizable if each of its calls can be given one moment
// between its invocation and its return at which it takes effect at once, so
// that the model, which is applied in the order of these moments, returns to
// each what it has returned (Herlihy and Wing, TOPLAS 1990). A call of which
// nobody knows whether it has run has its moment at any time after its
// invocation, or none.
//
// A failure shows the smallest part of the history that cannot be explained, as
// a timeline, and how far its orders come. What is left out would not help,
// whether it is taken to have run or not. Without any one of the calls that
// contradict each other, the others have an order; what that takes besides, as
// the Put of a value that is read too late, is shown if it is not too much.
//
// The model has
// - State: copyable, with operator==. It begins as State(). If absl::Hash takes
//   it, as containers and what has AbslHashValue, it is found among others by
//   that; if not, each new one is compared to all, which takes long with
//   thousands.
// - Apply(State&, const Operation&) const, for each type of operation: changes
//   the state, and returns what the call is to return. Statuses are compared by
//   their code, and other results by ==. What is returned without a status
//   stands for success with that value, and void for any success. It may not
//   depend on anything but its arguments. One that takes a const State& only
//   reads: have reads do that, as these need not be tried at different places.
// - Perhaps Key(const Operation&) const: operations with different keys have
//   nothing to do with each other, and are checked by themselves, each key from
//   State() on: with many keys, that takes less by far, and failures are
//   smaller. Keys are told apart by what testing::PrintToString makes of them.
//   If an operation has none, as one that clears all, all are checked together.
//
// The search is that of Wing and Gong (1993), just in time, with the states
// that have failed remembered (Lowe, 2017), by key (Horn and Kroening, 2015).
// At worst it takes exponential time in how many calls are made at once, and so
// it is given up after `most_steps`: the history is then not found to be
// linearizable, and the failure says why.
//
// Misuse:
// - Not(Linearizable(model)): a history whose check is given up fits, too.
// - Results that no order decides, such as a generated id or a time: return
//   something else from the function that makes the call.
// - A history that is checked while calls are still made: these count as calls
//   that may have run.

#ifndef WARD_TESTING_LINEARIZABLE_H_
#define WARD_TESTING_LINEARIZABLE_H_

#include <cstddef>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward::testing {

namespace internal {

// --- what a call has returned ---

// Of a function that returns void.
struct Nothing {};

template <typename T>
inline constexpr bool kIsStatus = std::is_same_v<T, absl::Status>;
template <typename T>
inline constexpr bool kIsStatusOr = false;
template <typename T>
inline constexpr bool kIsStatusOr<absl::StatusOr<T>> = true;

template <typename T>
absl::StatusCode CodeOf(const T& result) {
  if constexpr (kIsStatus<T>) {
    return result.code();
  } else if constexpr (kIsStatusOr<T>) {
    return result.status().code();
  } else {
    return absl::StatusCode::kOk;
  }
}

// What of it is compared.
template <typename T>
const auto& ValueOf(const T& result) {
  if constexpr (kIsStatusOr<T>) {
    return *result;
  } else {
    return result;
  }
}

template <typename T>
inline constexpr bool kHasNoValue = kIsStatus<T> || std::is_same_v<T, Nothing>;

template <typename Said, typename Returned>
bool Agree(const Said& said, const Returned& returned) {
  if (CodeOf(said) != CodeOf(returned)) return false;
  if constexpr (kHasNoValue<Said>) {
    return true;
  } else {
    static_assert(!kHasNoValue<Returned>,
                  "Model::Apply returns a value, and the call returns none");
    return CodeOf(said) != absl::StatusCode::kOk ||
           ValueOf(said) == ValueOf(returned);
  }
}

// Whether a call that failed like this may have run, or yet run.
bool MayHaveRun(const absl::Status& status);
template <typename T>
bool MayHaveRun(const absl::StatusOr<T>& result) {
  return MayHaveRun(result.status());
}
template <typename T>
bool MayHaveRun(const T& /*result*/) {
  return false;
}

std::string ShowStatus(const absl::Status& status);

template <typename T>
std::string Show(const T& result) {
  if constexpr (std::is_same_v<T, Nothing>) {
    return "OK";
  } else if constexpr (kIsStatus<T>) {
    return ShowStatus(result);
  } else if constexpr (kIsStatusOr<T>) {
    return result.ok() ? ::testing::PrintToString(*result)
                       : ShowStatus(result.status());
  } else {
    return ::testing::PrintToString(result);
  }
}

template <typename Function>
auto ResultOf(Function&& function) {
  if constexpr (std::is_void_v<std::invoke_result_t<Function>>) {
    function();
    return Nothing();
  } else {
    return function();
  }
}

// --- calls ---

class RecordedCall {
 public:
  virtual ~RecordedCall() = default;
  virtual std::string ShowOperation() const = 0;
  // Once it has returned.
  virtual std::string ShowResult() const = 0;
  // It changes no state.
  virtual bool IsRead() const = 0;
};

// A call of a history, at the time at which that is looked at.
struct Call {
  static constexpr size_t kNever = std::numeric_limits<size_t>::max();

  const RecordedCall* recorded = nullptr;
  int thread = 0;
  // Moments of the history, each another one.
  size_t invoked = 0;
  size_t returned = kNever;
  // Its result is one, and not an error after which it may have run.
  bool known = false;
  std::optional<std::string> key = std::nullopt;
};

// Thread-safe, and no scheduling point.
class CallLog {
 public:
  // Returns the call's number.
  size_t Invoke(std::unique_ptr<RecordedCall> call);
  void Return(size_t number, bool known);

  std::vector<Call> Calls() const;

 private:
  mutable absl::Mutex mutex_;
  size_t now_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<RecordedCall>> recorded_ ABSL_GUARDED_BY(mutex_);
  std::vector<Call> calls_ ABSL_GUARDED_BY(mutex_);
  // Where they have no number.
  std::map<std::thread::id, int> threads_ ABSL_GUARDED_BY(mutex_);
};

template <typename Model>
class CallOn : public RecordedCall {
 public:
  using State = typename Model::State;

  // Applies it to `state`; whether it returns what it has returned. If that is
  // not `known`, anything will do.
  virtual bool Apply(const Model& model, State& state, bool known) const = 0;
  virtual std::string WouldReturn(const Model& model, State& state) const = 0;
  virtual std::optional<std::string> Key(const Model& model) const = 0;
};

template <typename Model, typename Operation, typename = void>
inline constexpr bool kIsRead = false;
template <typename Model, typename Operation>
inline constexpr bool
    kIsRead<Model, Operation,
            std::void_t<decltype(std::declval<const Model&>().Apply(
                std::declval<const typename Model::State&>(),
                std::declval<const Operation&>()))>> = true;

template <typename Model, typename Operation, typename = void>
inline constexpr bool kHasKey = false;
template <typename Model, typename Operation>
inline constexpr bool
    kHasKey<Model, Operation,
            std::void_t<decltype(std::declval<const Model&>().Key(
                std::declval<const Operation&>()))>> = true;

template <typename Model, typename Operation, typename Returned>
class CallOf final : public CallOn<Model> {
 public:
  using State = typename Model::State;

  explicit CallOf(Operation operation) : operation_(std::move(operation)) {}

  // Before it is told to the log.
  void Return(const Returned& returned) { returned_.emplace(returned); }

  std::string ShowOperation() const override {
    return ::testing::PrintToString(operation_);
  }
  std::string ShowResult() const override { return Show(*returned_); }
  bool IsRead() const override { return kIsRead<Model, Operation>; }

  bool Apply(const Model& model, State& state, bool known) const override {
    const auto said = Say(model, state);
    return !known || Agree(said, *returned_);
  }
  std::string WouldReturn(const Model& model, State& state) const override {
    return Show(Say(model, state));
  }
  std::optional<std::string> Key(const Model& model) const override {
    if constexpr (kHasKey<Model, Operation>) {
      return ::testing::PrintToString(model.Key(operation_));
    } else {
      return std::nullopt;
    }
  }

 private:
  auto Say(const Model& model, State& state) const {
    return ResultOf([&] { return model.Apply(state, operation_); });
  }

  const Operation operation_;
  std::optional<Returned> returned_;
};

// --- states ---

// Those that a model comes to, by number; 0 is the first.
class StateSpace {
 public:
  virtual ~StateSpace() = default;
  // The state after a call; nothing if it would return something else there.
  virtual std::optional<size_t> After(size_t state, const Call& call) = 0;
  virtual std::string WouldReturn(size_t state, const Call& call) = 0;
};

template <typename Model>
class StatesOf final : public StateSpace {
 public:
  using State = typename Model::State;

  // `model` is borrowed.
  explicit StatesOf(const Model& model) : model_(model) { NumberOf(State()); }

  std::optional<size_t> After(size_t state, const Call& call) override {
    State next = states_[state];
    if (!Recorded(call).Apply(model_, next, call.known)) return std::nullopt;
    return NumberOf(std::move(next));
  }

  std::string WouldReturn(size_t state, const Call& call) override {
    State next = states_[state];
    return Recorded(call).WouldReturn(model_, next);
  }

 private:
  static const CallOn<Model>& Recorded(const Call& call) {
    return static_cast<const CallOn<Model>&>(*call.recorded);
  }

  static size_t HashOf(const State& state) {
    // Where it takes none, it cannot be made.
    if constexpr (std::is_default_constructible_v<absl::Hash<State>>) {
      return absl::Hash<State>()(state);
    } else {
      return 0;
    }
  }

  size_t NumberOf(State state) {
    std::vector<size_t>& alike = by_hash_[HashOf(state)];
    for (const size_t number : alike) {
      if (states_[number] == state) return number;
    }
    alike.push_back(states_.size());
    states_.push_back(std::move(state));
    return alike.back();
  }

  const Model& model_;
  std::deque<State> states_;
  absl::flat_hash_map<size_t, std::vector<size_t>> by_hash_;
};

// --- the check ---

struct Verdict {
  bool linearizable = false;
  std::string why;
};

// Checks the calls of each key by themselves; says why not if it is asked.
Verdict CheckCalls(absl::Span<const Call> calls,
                   absl::FunctionRef<std::unique_ptr<StateSpace>()> make_states,
                   size_t most_steps, bool explain);

}  // namespace internal

// Calls that several threads have made, in the order in which they were made
// and returned. Thread-safe. Outlives the calls.
//
// In a simulation a call is recorded without a scheduling point of its own.
template <typename Model>
class History {
 public:
  History() = default;
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  // Calls `call`, and returns what it does; it is copied. `operation`, which is
  // printed with testing::PrintToString, says to the model what was called.
  //
  // An absl::Status, or StatusOr, that is an error is a result as any other,
  // such as the NotFound of a key that was never put, unless it may come from
  // below the handler: then nobody knows whether that has run. These are those
  // of the codes Cancelled, DataLoss, DeadlineExceeded, Internal,
  // ResourceExhausted, Unavailable and Unknown, and of ward's reasons
  // kServerDied and kServerKilled. If a handler of yours returns such a one
  // itself, such as "the queue is full", have `call` make another value of it.
  //
  // A call that throws, or whose thread is killed, may have run, too.
  template <typename Operation, typename Function>
  auto Record(Operation operation, Function&& call)
      -> std::invoke_result_t<Function> {
    using Returned = decltype(internal::ResultOf(call));
    const auto returned = Invoke<Returned>(std::move(operation));
    Returned result = internal::ResultOf(call);
    returned(result);
    if constexpr (!std::is_void_v<std::invoke_result_t<Function>>) {
      return result;
    }
  }

  // The same for a call whose result comes otherwise, as that of an
  // AsyncClient: returns a function that is to be called with it, once; on any
  // thread.
  template <typename Returned, typename Operation>
  auto Invoke(Operation operation) {
    static_assert(std::is_copy_constructible_v<Returned>,
                  "what the call returns is to be copied: have it return what "
                  "of that is to be compared");
    auto call = std::make_unique<internal::CallOf<Model, Operation, Returned>>(
        std::move(operation));
    auto* const its = call.get();
    const size_t number = log_.Invoke(std::move(call));
    return [this, its, number](const Returned& returned) {
      its->Return(returned);
      log_.Return(number, !internal::MayHaveRun(returned));
    };
  }

  // For the matcher.
  std::vector<internal::Call> Calls() const { return log_.Calls(); }

  friend void PrintTo(const History& history, std::ostream* out) {
    *out << "a history of " << history.Calls().size() << " calls";
  }

 private:
  internal::CallLog log_;
};

// Steps of a check, of each key: a call that is tried after others. A thousand
// calls of eight threads take some thousands; this many take a fraction of a
// second, and as many states are kept at most.
inline constexpr size_t kMostSteps = 100000;

// See above. To explain a failure takes four times as many steps, at most.
template <typename Model>
class LinearizableMatcher {
 public:
  using is_gtest_matcher = void;

  LinearizableMatcher(Model model, size_t most_steps)
      : model_(std::move(model)), most_steps_(most_steps) {}

  bool MatchAndExplain(const History<Model>& history,
                       ::testing::MatchResultListener* listener) const {
    std::vector<internal::Call> calls = history.Calls();
    for (internal::Call& call : calls) {
      call.key = static_cast<const internal::CallOn<Model>&>(*call.recorded)
                     .Key(model_);
    }
    const internal::Verdict verdict = internal::CheckCalls(
        calls,
        [this] { return std::make_unique<internal::StatesOf<Model>>(model_); },
        most_steps_, listener->IsInterested());
    *listener << verdict.why;
    return verdict.linearizable;
  }

  void DescribeTo(std::ostream* out) const {
    *out << "is linearizable: its calls, one after the other, would return the "
            "same in some order";
  }
  void DescribeNegationTo(std::ostream* out) const {
    *out << "is not found to be linearizable";
  }

 private:
  const Model model_;
  const size_t most_steps_;
};

// Matches a History<Model>.
template <typename Model>
LinearizableMatcher<Model> Linearizable(Model model,
                                        size_t most_steps = kMostSteps) {
  return LinearizableMatcher<Model>(std::move(model), most_steps);
}

}  // namespace ward::testing

#endif  // WARD_TESTING_LINEARIZABLE_H_
