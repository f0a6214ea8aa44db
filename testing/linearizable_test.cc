#include "ward/testing/linearizable.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/method.h"
#include "ward/testing/explore.h"
#include "ward/testing/matchers.h"
#include "ward/testing/run_at_once.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

template <typename Model>
std::string WhyNot(const History<Model>& history,
                   const LinearizableMatcher<Model>& matcher) {
  ::testing::StringMatchResultListener listener;
  EXPECT_FALSE(matcher.MatchAndExplain(history, &listener));
  return listener.str();
}

// --- a store ---

constexpr Method<std::string, int> kGet{"get"};
constexpr Method<Arguments<std::string, int>, void> kPut{"put"};
constexpr Method<Arguments<std::string, int, int>, bool> kCompareAndSet{
    "compare_and_set"};

enum class Bug { kNone, kStaleRead, kLostUpdate };

// Values by key, 0 where there is none, and a cache of them.
class Store : public AbstractServer {
 public:
  explicit Store(Bug bug = Bug::kNone) : bug_(bug) {
    Define(kGet, &Store::DoGet);
    Define(kPut, &Store::DoPut);
    Define(kCompareAndSet, &Store::DoCompareAndSet);
  }

 private:
  absl::StatusOr<int> DoGet(const std::string& key) {
    if (bug_ != Bug::kStaleRead) return Value(key);
    {
      const absl::MutexLock lock(&mutex_);
      const auto cached = cache_.find(key);
      if (cached != cache_.end()) return cached->second;
    }
    // Which may be another one by now.
    const int value = Value(key);
    const absl::MutexLock lock(&mutex_);
    return cache_[key] = value;
  }

  absl::Status DoPut(const std::string& key, int value) {
    const absl::MutexLock lock(&mutex_);
    values_[key] = value;
    cache_.erase(key);
    return absl::OkStatus();
  }

  absl::StatusOr<bool> DoCompareAndSet(const std::string& key, int expected,
                                       int value) {
    if (bug_ == Bug::kLostUpdate) {
      if (Value(key) != expected) return false;
      const absl::MutexLock lock(&mutex_);
      values_[key] = value;
      return true;
    }
    const absl::MutexLock lock(&mutex_);
    if (values_[key] != expected) return false;
    values_[key] = value;
    return true;
  }

  int Value(const std::string& key) {
    const absl::MutexLock lock(&mutex_);
    return values_[key];
  }

  const Bug bug_;
  absl::Mutex mutex_;
  std::map<std::string, int> values_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> cache_ ABSL_GUARDED_BY(mutex_);
};

// --- what docs/testing.md shows ---

struct Get {
  std::string key;
};
struct Put {
  std::string key;
  int value;
};
struct CompareAndSet {
  std::string key;
  int expected;
  int value;
};

std::ostream& operator<<(std::ostream& out, const Get& get) {
  return out << "Get(" << get.key << ")";
}
std::ostream& operator<<(std::ostream& out, const Put& put) {
  return out << "Put(" << put.key << ", " << put.value << ")";
}
std::ostream& operator<<(std::ostream& out, const CompareAndSet& set) {
  return out << "CompareAndSet(" << set.key << ", " << set.expected << ", "
             << set.value << ")";
}

struct StoreModel {
  using State = std::map<std::string, int>;

  int Apply(const State& values, const Get& get) const {
    const auto found = values.find(get.key);
    return found == values.end() ? 0 : found->second;
  }
  void Apply(State& values, const Put& put) const {
    values[put.key] = put.value;
  }
  bool Apply(State& values, const CompareAndSet& set) const {
    if (values[set.key] != set.expected) return false;
    values[set.key] = set.value;
    return true;
  }

  template <typename Operation>
  std::string Key(const Operation& operation) const {
    return operation.key;
  }
};

void IncrementAtOnce(Store& store) {
  ASSERT_THAT(store.Start(), IsOk());
  History<StoreModel> history;
  const auto increment = [&] {
    ASSERT_OK_AND_ASSIGN(const int hits, history.Record(Get{"hits"}, [&] {
      return store.Call(kGet, "hits");
    }));
    EXPECT_THAT(
        history.Record(
            CompareAndSet{"hits", hits, hits + 1},
            [&] { return store.Call(kCompareAndSet, "hits", hits, hits + 1); }),
        IsOk());
  };
  RunAtOnce(increment, increment);
  EXPECT_THAT(history, Linearizable(StoreModel()));
  EXPECT_THAT(store.Stop(), IsOk());
}

// --- in explorations ---

// Other calls than those that matter, too.
void ReadWhileWriting(Store& store) {
  ASSERT_THAT(store.Start(), IsOk());
  History<StoreModel> history;
  const auto get = [&](const std::string& key) {
    history.Record(Get{key}, [&] { return store.Call(kGet, key); })
        .IgnoreError();
  };
  const auto put = [&](const std::string& key, int value) {
    history
        .Record(Put{key, value}, [&] { return store.Call(kPut, key, value); })
        .IgnoreError();
  };
  put("a", 1);
  put("b", 1);
  RunAtOnce([&] { get("a"); },
            [&] {
              put("a", 2);
              get("a");
            },
            [&] { get("b"); });
  get("b");
  get("a");
  EXPECT_THAT(history, Linearizable(StoreModel()));
  EXPECT_THAT(store.Stop(), IsOk());
}

ExploreOptions Runs(uint64_t runs) {
  ExploreOptions options;
  options.runs = runs;
  return options;
}

// What does not depend on which threads there are, and on what a search finds
// first: without the numbers of threads, and the bars.
std::string Essence(std::string_view text) {
  std::string essence = std::regex_replace(
      std::string(text), std::regex("thread [0-9]+ *"), "thread # ");
  return std::regex_replace(essence, std::regex(" *\\[-*(\\]|\\.\\.\\.)"), "");
}

TEST(LinearizableInExplorationTest, FindsAStaleRead) {
  const Exploration found = FindFailure(Runs(10000), [] {
    Store store(Bug::kStaleRead);
    ReadWhileWriting(store);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
  EXPECT_THAT(
      Essence(found.failure->what),
      HasSubstr(
          R"(Actual: a history of 8 calls, in which no order explains these 3 of key "a" (2 more would not help):

  (1)  thread # Put(a, 1) -> OK
  (2)  thread # Put(a, 2) -> OK
  (3)  thread # Get(a) -> 1

No order of them comes further than this:
  after (1) Put(a, 1), (2) Put(a, 2): (3) Get(a) would return 2, not 1
)"));
}

TEST(LinearizableInExplorationTest, FindsALostUpdate) {
  const Exploration found = FindFailure(Runs(10000), [] {
    Store store(Bug::kLostUpdate);
    IncrementAtOnce(store);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
  // The one that returns last comes first.
  const std::string first_last =
      R"(  after (2) CompareAndSet(hits, 0, 1): (1) CompareAndSet(hits, 0, 1) would return false, not true
)";
  const std::string second_last =
      R"(  after (1) CompareAndSet(hits, 0, 1): (2) CompareAndSet(hits, 0, 1) would return false, not true
)";
  const std::string calls =
      R"(Actual: a history of 4 calls, in which no order explains these 2 of key "hits" (2 more would not help):

  (1)  thread # CompareAndSet(hits, 0, 1) -> true
  (2)  thread # CompareAndSet(hits, 0, 1) -> true

No order of them comes further than this:
)";
  EXPECT_THAT(Essence(found.failure->what),
              AnyOf(HasSubstr(calls + first_last + second_last),
                    HasSubstr(calls + second_last + first_last)));
}

TEST(LinearizableInExplorationTest, FindsNothingInAStoreThatIsRight) {
  Explore(Runs(500), [] {
    Store store;
    ReadWhileWriting(store);
  });
  Explore(Runs(500), [] {
    Store store;
    IncrementAtOnce(store);
  });
}

// Calls that are cut, and servers that die: nobody knows what has run.
TEST(LinearizableInExplorationTest, LeavesOpenWhatMayHaveRun) {
  ExploreOptions options = Runs(1000);
  options.faults = true;
  options.deaths = true;
  Explore(options, [] {
    Store store;
    if (!store.Start().ok()) return;
    History<StoreModel> history;
    const auto set = [&](int expected, int value) {
      history
          .Record(
              CompareAndSet{"a", expected, value},
              [&] { return store.Call(kCompareAndSet, "a", expected, value); })
          .IgnoreError();
    };
    {
      const auto other = Environment::Default().StartThread([&] {
        set(0, 2);
        set(1, 3);
      });
      set(0, 1);
    }
    set(3, 4);
    EXPECT_THAT(history, Linearizable(StoreModel()));
    store.Stop().IgnoreError();
  });
}

// --- histories whose answer is known ---

// How a call that has been made is told what it returns.
template <typename Returned>
using Returns = std::function<void(const Returned&)>;

class RegisterTest : public ::testing::Test {
 protected:
  Returns<absl::Status> Write(int value) {
    return history_.Invoke<absl::Status>(Put{"x", value});
  }
  Returns<absl::StatusOr<int>> Read() {
    return history_.Invoke<absl::StatusOr<int>>(Get{"x"});
  }
  Returns<absl::StatusOr<bool>> Set(int expected, int value) {
    return history_.Invoke<absl::StatusOr<bool>>(
        CompareAndSet{"x", expected, value});
  }
  std::string WhyNot() {
    return testing::WhyNot(history_, Linearizable(StoreModel()));
  }

  History<StoreModel> history_;
};

TEST_F(RegisterTest, IsLinearizableWithoutCalls) {
  EXPECT_THAT(history_, Linearizable(StoreModel()));
}

TEST_F(RegisterTest, ReadsWhatWasWrittenLast) {
  Write(1)(absl::OkStatus());
  Read()(1);
  Write(2)(absl::OkStatus());
  Read()(2);
  EXPECT_THAT(history_, Linearizable(StoreModel()));
}

TEST_F(RegisterTest, ReadsEitherOfTwoThatAreWrittenAtOnce) {
  const auto one = Write(1);
  const auto two = Write(2);
  const auto reading = Read();
  Read()(2);
  Read()(1);
  one(absl::OkStatus());
  reading(0);
  two(absl::OkStatus());
  Read()(1);
  EXPECT_THAT(history_, Linearizable(StoreModel()));
}

TEST_F(RegisterTest, DoesNotReadTheOneAndTheOtherAgain) {
  const auto one = Write(1);
  const auto two = Write(2);
  Read()(2);
  Read()(1);
  Read()(2);
  one(absl::OkStatus());
  two(absl::OkStatus());
  EXPECT_EQ(WhyNot(), R"(in which no order explains these 5 of key "x":

  (1)  thread 0  Put(x, 1) -> OK  [---------------]
  (2)  thread 0  Put(x, 2) -> OK    [---------------]
  (3)  thread 0  Get(x) -> 2          [-]
  (4)  thread 0  Get(x) -> 1              [-]
  (5)  thread 0  Get(x) -> 2                  [-]

No order of them comes further than this:
  after (2) Put(x, 2), (3) Get(x), (1) Put(x, 1), (4) Get(x): (5) Get(x) would return 1, not 2
  after (1) Put(x, 1), (2) Put(x, 2), (3) Get(x): (4) Get(x) would return 2, not 1
)");
}

TEST_F(RegisterTest, ShowsAStaleReadAndWhereItsValueCameFrom) {
  Write(5)(absl::OkStatus());
  Read()(5);
  Write(1)(absl::OkStatus());
  const auto reading = Read();
  Read()(1);
  Write(2)(absl::OkStatus());
  Read()(2);
  Read()(1);
  reading(1);
  Write(3)(absl::OkStatus());
  EXPECT_EQ(
      WhyNot(),
      R"(in which no order explains these 3 of key "x" (6 more would not help):

  (1)  thread 0  Put(x, 1) -> OK  [-]
  (2)  thread 0  Put(x, 2) -> OK      [-]
  (3)  thread 0  Get(x) -> 1              [-]

No order of them comes further than this:
  after (1) Put(x, 1), (2) Put(x, 2): (3) Get(x) would return 2, not 1
)");
}

TEST_F(RegisterTest, ShowsAValueThatNobodyWroteAlone) {
  Write(1)(absl::OkStatus());
  Write(2)(absl::OkStatus());
  Read()(7);
  Read()(2);
  EXPECT_EQ(
      WhyNot(),
      R"(in which no order explains this call of key "x" (3 more would not help):

  (1)  thread 0  Get(x) -> 7  [-]

No order of them comes further than this:
  at first, (1) Get(x) would return 0, not 7
)");
}

TEST_F(RegisterTest, TakesWhatMayHaveRunForEither) {
  Write(1)(absl::OkStatus());
  Write(2)(absl::UnavailableError("cut"));
  const auto never = Write(3);
  Set(1, 4)(MakeError(reason::kServerDied, "killed"));
  Read()(1);
  Read()(4);
  Read()(2);
  Read()(3);
  EXPECT_THAT(history_, Linearizable(StoreModel()));
  Read()(2);
  EXPECT_EQ(
      WhyNot(),
      R"(in which no order explains these 5 of key "x" (4 more would not help):

  (1)  thread 0  Put(x, 2) -> ? UNAVAILABLE: cut  [----------------...
  (2)  thread 0  Put(x, 3) -> ?                     [--------------...
  (3)  thread 0  Get(x) -> 2                          [-]
  (4)  thread 0  Get(x) -> 3                              [-]
  (5)  thread 0  Get(x) -> 2                                  [-]
  ?: it may have taken effect, or not

No order of them comes further than this:
  after (1) Put(x, 2), (3) Get(x), (2) Put(x, 3), (4) Get(x): (5) Get(x) would return 3, not 2
  after (2) Put(x, 3), (1) Put(x, 2), (3) Get(x): (4) Get(x) would return 2, not 3
)");
}

TEST_F(RegisterTest, TakesAnErrorOfTheHandlerForAResult) {
  Read()(absl::NotFoundError("x"));
  EXPECT_THAT(WhyNot(), AllOf(HasSubstr("Get(x) -> NOT_FOUND: x"),
                              EndsWith("would return 0, not NOT_FOUND: x\n")));
}

TEST_F(RegisterTest, TakesACallThatThrowsForOneThatMayHaveRun) {
  const auto fails = []() -> absl::Status { throw std::runtime_error("no"); };
  EXPECT_THROW(history_.Record(Put{"x", 1}, fails).IgnoreError(),
               std::runtime_error);
  Read()(0);
  Read()(1);
  EXPECT_THAT(history_, Linearizable(StoreModel()));
}

TEST_F(RegisterTest, IsCheckedByKey) {
  for (int i = 0; i < 40; ++i) {
    // All at once.
    history_.Invoke<absl::Status>(Put{absl::StrCat("k", i), i});
  }
  for (int i = 0; i < 40; ++i) {
    history_.Invoke<absl::StatusOr<int>>(Get{absl::StrCat("k", i)})(
        i == 30 ? 7 : i);
  }
  EXPECT_THAT(WhyNot(),
              AllOf(HasSubstr("explains this call of key \"k30\""),
                    HasSubstr("Get(k30) -> 7"), Not(HasSubstr("k29"))));
}

// --- other models ---

struct Push {
  int item;
};
struct Pop {};
std::ostream& operator<<(std::ostream& out, const Push& push) {
  return out << "Push(" << push.item << ")";
}
std::ostream& operator<<(std::ostream& out, const Pop& /*pop*/) {
  return out << "Pop()";
}

// A state that absl::Hash does not take.
struct Items {
  std::deque<int> items;
  friend bool operator==(const Items& a, const Items& b) {
    return a.items == b.items;
  }
};

template <typename Items>
struct QueueModel {
  using State = Items;

  static std::deque<int>& In(std::deque<int>& items) { return items; }
  static std::deque<int>& In(testing::Items& items) { return items.items; }

  absl::Status Apply(State& state, const Push& push) const {
    if (In(state).size() >= room) return absl::AbortedError("full");
    In(state).push_back(push.item);
    return absl::OkStatus();
  }
  std::optional<int> Apply(State& state, const Pop& /*pop*/) const {
    std::deque<int>& items = In(state);
    if (items.empty()) return std::nullopt;
    const int item = items.front();
    items.pop_front();
    return item;
  }

  size_t room = 1000;
};

template <typename Items>
class QueueTest : public ::testing::Test {
 protected:
  Returns<absl::Status> Push(int item) {
    return history_.template Invoke<absl::Status>(testing::Push{item});
  }
  Returns<std::optional<int>> Pop() {
    return history_.template Invoke<std::optional<int>>(testing::Pop());
  }

  History<QueueModel<Items>> history_;
};

using QueueStates = ::testing::Types<std::deque<int>, Items>;
TYPED_TEST_SUITE(QueueTest, QueueStates);

TYPED_TEST(QueueTest, GivesWhatWasPushedAtOnceInAnyOrder) {
  const auto one = this->Push(1);
  const auto two = this->Push(2);
  const auto three = this->Push(3);
  const auto popping = this->Pop();
  this->Pop()(3);
  one(absl::OkStatus());
  two(absl::OkStatus());
  popping(1);
  three(absl::OkStatus());
  this->Pop()(2);
  this->Pop()(std::nullopt);
  EXPECT_THAT(this->history_, Linearizable(QueueModel<TypeParam>()));
}

TYPED_TEST(QueueTest, GivesInOrderWhatWasPushedInOrder) {
  this->Push(1)(absl::OkStatus());
  const auto popping = this->Pop();
  this->Push(2)(absl::OkStatus());
  this->Push(3)(absl::OkStatus());
  this->Pop()(3);
  popping(1);
  EXPECT_THAT(WhyNot(this->history_, Linearizable(QueueModel<TypeParam>())),
              AllOf(HasSubstr("Pop() -> (3)"), HasSubstr("Push(3) -> OK")));
}

TYPED_TEST(QueueTest, GivesNothingTwice) {
  this->Push(1)(absl::OkStatus());
  const auto one = this->Pop();
  const auto other = this->Pop();
  one(1);
  other(1);
  EXPECT_THAT(WhyNot(this->history_, Linearizable(QueueModel<TypeParam>())),
              HasSubstr("explains these 3:"));
}

TYPED_TEST(QueueTest, FailsWithTheCodeThatTheModelSays) {
  this->Push(1)(absl::OkStatus());
  this->Push(2)(absl::AbortedError("another text"));
  EXPECT_THAT(this->history_, Linearizable(QueueModel<TypeParam>{/*room=*/1}));
  this->Push(3)(absl::NotFoundError("full"));
  EXPECT_THAT(WhyNot(this->history_, Linearizable(QueueModel<TypeParam>{1})),
              EndsWith("(1) Push(3) would return OK, not NOT_FOUND: full\n"));
}

struct Add {
  int sum;
};
std::ostream& operator<<(std::ostream& out, const Add& /*add*/) {
  return out << "Add()";
}

struct SumModel {
  using State = int;
  int Apply(int& sum, const Add& /*add*/) const { return ++sum; }
};

TEST(HistoryTest, TakesFunctionsThatReturnNoStatus) {
  int sum = 0;
  History<SumModel> history;
  EXPECT_EQ(history.Record(Add(), [&] { return ++sum; }), 1);
  EXPECT_EQ(history.Record(Add(), [&] { return ++sum; }), 2);
  EXPECT_THAT(history, Linearizable(SumModel()));
  sum = 1;
  EXPECT_EQ(history.Record(Add(), [&] { return ++sum; }), 2);
  EXPECT_THAT(history, Not(Linearizable(SumModel())));
  EXPECT_EQ(::testing::PrintToString(history), "a history of 3 calls");
}

TEST(HistoryTest, DoesNotShowAllThatLeadsToACall) {
  History<SumModel> history;
  for (int sum = 1; sum <= 200; ++sum) history.Invoke<int>(Add())(sum);
  history.Invoke<int>(Add())(200);
  EXPECT_EQ(WhyNot(history, Linearizable(SumModel())),
            R"(in which no order explains these 2 (199 more would not help):

  (1)  thread 0  Add() -> 200  [-]
  (2)  thread 0  Add() -> 200      [-]

No order of them comes further than this:
  after 199 not shown, (1) Add(): (2) Add() would return 201, not 200
  after 198 not shown: (1) Add() would return 199, not 200
  after 197 not shown: (1) Add() would return 198, not 200
  after 196 not shown: (1) Add() would return 197, not 200
  and others
)");
}

TEST(HistoryTest, TakesFunctionsThatReturnNothing) {
  History<StoreModel> history;
  history.Record(Put{"a", 1}, [] {});
  EXPECT_THAT(history, Linearizable(StoreModel()));
}

// An operation without a key has to do with all.
struct Clear {};
std::ostream& operator<<(std::ostream& out, const Clear& /*clear*/) {
  return out << "Clear()";
}
struct ClearedModel : StoreModel {
  using StoreModel::Apply;
  void Apply(State& values, const Clear& /*clear*/) const { values.clear(); }
  std::string Key(const Get& get) const { return get.key; }
  std::string Key(const Put& put) const { return put.key; }
};

TEST(HistoryTest, IsCheckedAsOneIfAnOperationHasNoKey) {
  History<ClearedModel> history;
  history.Record(Put{"a", 1}, [] {});
  history.Record(Clear(), [] {});
  EXPECT_EQ(history.Record(Get{"a"}, [] { return 0; }), 0);
  EXPECT_THAT(history, Linearizable(ClearedModel()));
}

// --- random histories, beside all orders ---

struct Step {
  size_t id;
  // What is expected, unless any value is, and written, unless none is.
  std::optional<int> expected;
  std::optional<int> written;
};
std::ostream& operator<<(std::ostream& out, const Step& step) {
  return out << "#" << step.id;
}

// One that writes nothing.
struct Look {
  Step step;
};
std::ostream& operator<<(std::ostream& out, const Look& look) {
  return out << look.step;
}

// A step returns the value before it.
struct StepModel {
  using State = int;
  int Apply(const int& value, const Look& /*look*/) const { return value; }
  int Apply(int& value, const Step& step) const {
    const int before = value;
    if (step.written.has_value() && step.expected.value_or(value) == value) {
      value = *step.written;
    }
    return before;
  }
};

struct RandomCall {
  Step step;
  size_t invoked;
  // Nothing if it has not returned.
  std::optional<size_t> returned;
  int result;
};

using Calls = std::set<size_t>;

// Tries all orders.
bool HasOrder(const std::vector<RandomCall>& calls, const Calls& required,
              const Calls& optional, int value = 0) {
  if (required.empty()) return true;
  Calls left = required;
  left.insert(optional.begin(), optional.end());
  for (const size_t next : left) {
    const RandomCall& call = calls[next];
    int after = value;
    const int result = StepModel().Apply(after, call.step);
    if (call.returned.has_value() && result != call.result) continue;
    Calls still_required = required;
    still_required.erase(next);
    const bool is_too_early = std::any_of(
        still_required.begin(), still_required.end(),
        [&](size_t other) { return *calls[other].returned < call.invoked; });
    if (is_too_early) continue;
    // What has returned before this one was invoked was left out.
    Calls still_optional;
    for (const size_t other : optional) {
      if (other != next &&
          calls[other].returned.value_or(calls.size() * 2) > call.invoked) {
        still_optional.insert(other);
      }
    }
    if (HasOrder(calls, still_required, still_optional, after)) return true;
  }
  return false;
}

Calls Without(Calls calls, size_t call) {
  calls.erase(call);
  return calls;
}

// Whether `shown` are what the header says: some of them, `core`, have no order
// with whatever else; without any one of these the rest has one; and it takes
// all of the others for that.
bool Explains(const std::vector<RandomCall>& calls, const Calls& all,
              const Calls& shown, const Calls& core) {
  Calls others;
  std::set_difference(all.begin(), all.end(), core.begin(), core.end(),
                      std::inserter(others, others.end()));
  if (HasOrder(calls, core, others)) return false;
  const auto helps = [&](const Calls& context) {
    return std::all_of(core.begin(), core.end(), [&](size_t call) {
      return HasOrder(calls, Without(core, call), context);
    });
  };
  Calls context;
  std::set_difference(shown.begin(), shown.end(), core.begin(), core.end(),
                      std::inserter(context, context.end()));
  return helps(context) &&
         std::none_of(context.begin(), context.end(), [&](size_t call) {
           return helps(Without(context, call));
         });
}

class RandomHistory {
 public:
  explicit RandomHistory(unsigned seed) : random_(seed) {
    std::map<size_t, std::function<void(const int&)>> under_way;
    int value = 0;
    for (size_t moment = 0; calls_.size() < 7 || Below(2) == 0; ++moment) {
      if (!under_way.empty() && (under_way.size() == 3 || Below(2) == 0)) {
        auto ending = under_way.begin();
        std::advance(ending, Below(static_cast<int>(under_way.size())));
        RandomCall& call = calls_[ending->first];
        // Most are right.
        const int result = StepModel().Apply(value, call.step);
        call.result = Below(8) == 0 ? Below(3) : result;
        if (Below(6) != 0) {
          call.returned = moment;
          ending->second(call.result);
        }
        under_way.erase(ending);
        continue;
      }
      if (calls_.size() == 8) break;
      const Step step = {calls_.size(), Perhaps(), Perhaps()};
      if (step.written.has_value()) {
        under_way[step.id] = history.Invoke<int>(step);
      } else {
        under_way[step.id] = history.Invoke<int>(Look{step});
      }
      calls_.push_back({step, moment, std::nullopt, 0});
    }
  }

  const std::vector<RandomCall>& calls() const { return calls_; }

  History<StepModel> history;

 private:
  int Below(int end) {
    return static_cast<int>(random_() % static_cast<unsigned>(end));
  }
  std::optional<int> Perhaps() {
    if (Below(3) == 0) return std::nullopt;
    return Below(3);
  }

  std::mt19937 random_;
  std::vector<RandomCall> calls_;
};

TEST(RandomHistoryTest, IsJudgedAsByTryingAllOrders) {
  int linearizable = 0;
  int not_linearizable = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    const RandomHistory random(seed);
    Calls all;
    Calls known;
    Calls pending;
    for (const RandomCall& call : random.calls()) {
      all.insert(call.step.id);
      (call.returned.has_value() ? known : pending).insert(call.step.id);
    }
    if (HasOrder(random.calls(), known, pending)) {
      ++linearizable;
      EXPECT_THAT(random.history, Linearizable(StepModel()));
      continue;
    }
    ++not_linearizable;
    const std::string why = WhyNot(random.history, Linearizable(StepModel()));
    Calls shown;
    const std::regex row("#([0-9]+) ->");
    for (std::sregex_iterator found(why.begin(), why.end(), row);
         found != std::sregex_iterator(); ++found) {
      shown.insert(std::stoul((*found)[1]));
    }
    bool explains = false;
    for (unsigned bits = 1; bits < 1u << random.calls().size(); ++bits) {
      Calls core;
      for (const size_t call : shown) {
        if ((bits >> call & 1) != 0 && known.count(call) > 0) core.insert(call);
      }
      if (Explains(random.calls(), all, shown, core)) {
        explains = true;
        break;
      }
    }
    EXPECT_TRUE(explains) << why;
  }
  EXPECT_GT(linearizable, 100);
  EXPECT_GT(not_linearizable, 100);
}

// --- how much work it takes ---

// What `threads` threads do with a store of `keys` keys that is right: `calls`
// calls, which take effect at any time between.
void MakeHistory(int calls, size_t threads, int keys,
                 History<StoreModel>& history) {
  struct Thread {
    std::function<void()> take_effect;
    std::function<void()> finish;
  };
  std::vector<Thread> all(threads);
  std::map<std::string, int> values;
  std::mt19937 random(1);
  const auto below = [&](int end) {
    return static_cast<int>(random() % static_cast<unsigned>(end));
  };
  const StoreModel model;
  const auto begin = [&](Thread& thread, const auto& operation, auto result) {
    using Result = decltype(result);
    const auto kept = std::make_shared<Result>(result);
    thread.take_effect = [&model, &values, operation, kept] {
      if constexpr (std::is_same_v<Result, absl::Status>) {
        model.Apply(values, operation);
      } else {
        *kept = model.Apply(values, operation);
      }
    };
    thread.finish = [returns = history.Invoke<Result>(operation), kept] {
      returns(*kept);
    };
  };
  for (int made = 0; made < calls;) {
    Thread& thread = all[static_cast<size_t>(below(static_cast<int>(threads)))];
    if (thread.take_effect) {
      std::exchange(thread.take_effect, nullptr)();
    } else if (thread.finish) {
      std::exchange(thread.finish, nullptr)();
    } else {
      ++made;
      const std::string key = absl::StrCat("k", below(keys));
      switch (below(3)) {
        case 0:
          begin(thread, Get{key}, 0);
          break;
        case 1:
          begin(thread, Put{key, below(5)}, absl::OkStatus());
          break;
        default:
          begin(thread, CompareAndSet{key, below(5), below(5)}, false);
      }
    }
  }
}

// Without keys.
struct WholeStoreModel {
  using State = StoreModel::State;
  template <typename Operation>
  auto Apply(State& values, const Operation& operation) const {
    return StoreModel().Apply(values, operation);
  }
};

TEST(WorkTest, AThousandCallsOfEightThreadsTakeFewSteps) {
  History<StoreModel> history;
  MakeHistory(/*calls=*/1000, /*threads=*/8, /*keys=*/1, history);
  EXPECT_THAT(history, Linearizable(StoreModel(), /*most_steps=*/5000));
}

TEST(WorkTest, AThousandCallsWithOneThatIsWrongTakeFewStepsToo) {
  History<StoreModel> history;
  MakeHistory(/*calls=*/1000, /*threads=*/8, /*keys=*/1, history);
  history.Record(Get{"k0"}, [] { return 17; });
  EXPECT_THAT(WhyNot(history, Linearizable(StoreModel())),
              HasSubstr("explains this call of key \"k0\" (1000 more"));
}

TEST(WorkTest, IsGivenUpWhereItTakesTooMuch) {
  // All at once, in an order that only the last pops tell.
  History<QueueModel<std::deque<int>>> history;
  std::vector<Returns<absl::Status>> pushing;
  for (int item = 0; item < 20; ++item) {
    pushing.emplace_back(history.Invoke<absl::Status>(Push{item}));
  }
  for (const auto& returns : pushing) returns(absl::OkStatus());
  for (int item = 19; item > 0; --item) {
    history.Invoke<std::optional<int>>(Pop())(item);
  }
  history.Invoke<std::optional<int>>(Pop())(20);
  EXPECT_EQ(
      WhyNot(history, Linearizable(QueueModel<std::deque<int>>(),
                                   /*most_steps=*/10000)),
      "whose check was given up after 10000 steps: whether it is linearizable "
      "is not known. It has 40 calls, and an order was found as far as the "
      "return of 20 of them. Make fewer calls, or fewer at once; give the "
      "model "
      "a Key(); or allow Linearizable() more steps");
}

}  // namespace
}  // namespace ward::testing
