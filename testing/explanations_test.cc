// What Explore says of deadlocks, and of updates that are lost: by programs as
// a user has them. Compiled with -g1, for lines.

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"
#include "ward/server/environment.h"
#include "ward/server/process.h"
#include "ward/testing/explore.h"

// Not of ward's, which is left out of stacks.
namespace shop {
namespace {

// Functions are neither inlined nor tail calls, so that stacks have them.
#define SHOP_FUNCTION [[gnu::noinline]]

volatile int sold = 0;

struct Stock {
  std::mutex mutex;
  int count = 10;
};

SHOP_FUNCTION void Move(Stock& from, Stock& to) {
  const std::lock_guard<std::mutex> first(from.mutex);
  const std::lock_guard<std::mutex> second(to.mutex);
  --from.count;
  ++to.count;
}

void MovesBothWays() {
  Stock shelf;
  Stock cellar;
  std::thread other([&] {
    Move(cellar, shelf);
    sold = 1;
  });
  Move(shelf, cellar);
  other.join();
}

absl::Mutex till_mutex(absl::kConstInit);
absl::Mutex book_mutex(absl::kConstInit);

SHOP_FUNCTION void Sell() {
  const absl::MutexLock till(&till_mutex);
  const absl::MutexLock book(&book_mutex);
  sold = 1;
}

SHOP_FUNCTION void Audit() {
  const absl::MutexLock book(&book_mutex);
  const absl::MutexLock till(&till_mutex);
  sold = 2;
}

void SellsWhileAudited() {
  // Abseil would notice the order before it does harm.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::thread other([] {
    Audit();
    sold = 3;
  });
  Sell();
  other.join();
}

std::array<pthread_mutex_t, 3> forks = {{PTHREAD_MUTEX_INITIALIZER,
                                         PTHREAD_MUTEX_INITIALIZER,
                                         PTHREAD_MUTEX_INITIALIZER}};

SHOP_FUNCTION void Dine(size_t seat) {
  pthread_mutex_lock(&forks[seat]);
  pthread_mutex_lock(&forks[(seat + 1) % forks.size()]);
  sold = 1;
  pthread_mutex_unlock(&forks[(seat + 1) % forks.size()]);
  pthread_mutex_unlock(&forks[seat]);
}

void ThreeDine() {
  std::vector<std::thread> others;
  for (size_t seat = 0; seat < forks.size(); ++seat) {
    others.emplace_back([seat] {
      Dine(seat);
      sold = 2;
    });
  }
  for (std::thread& other : others) other.join();
}

SHOP_FUNCTION void Close(std::mutex& mutex, std::thread& clerk) {
  const std::lock_guard<std::mutex> lock(mutex);
  clerk.join();
  sold = 1;
}

SHOP_FUNCTION void Serve(std::mutex& mutex) {
  const std::lock_guard<std::mutex> lock(mutex);
  sold = 2;
}

void JoinsUnderALock() {
  std::mutex mutex;
  std::thread clerk([&] {
    Serve(mutex);
    sold = 3;
  });
  Close(mutex, clerk);
}

SHOP_FUNCTION void Reprice(std::shared_mutex& prices) {
  const std::shared_lock<std::shared_mutex> reading(prices);
  const std::unique_lock<std::shared_mutex> writing(prices);
  sold = 1;
}

void UpgradesALock() {
  std::shared_mutex prices;
  Reprice(prices);
}

void TwoUpgradeALock() {
  std::shared_mutex prices;
  std::thread other([&] {
    Reprice(prices);
    sold = 2;
  });
  Reprice(prices);
  other.join();
}

SHOP_FUNCTION void Count(std::mutex& mutex) {
  const std::lock_guard<std::mutex> lock(mutex);
  sold = 1;
}

SHOP_FUNCTION void CountAll(std::mutex& mutex) {
  const std::lock_guard<std::mutex> lock(mutex);
  Count(mutex);
  sold = 2;
}

void LocksTwice() {
  std::mutex mutex;
  CountAll(mutex);
}

std::recursive_mutex catalogue_mutex;

SHOP_FUNCTION int Load() {
  const std::lock_guard<std::recursive_mutex> lock(catalogue_mutex);
  return 1;
}

SHOP_FUNCTION int Catalogue() {
  static const int kCatalogue = Load();
  return kCatalogue;
}

SHOP_FUNCTION void Print() {
  const std::lock_guard<std::recursive_mutex> lock(catalogue_mutex);
  sold = Catalogue();
}

void InitialisesUnderALock() {
  std::thread other([] {
    Print();
    sold = 1;
  });
  sold = Catalogue();
  other.join();
}

// A pool that is never told to end.
class Pool {
 public:
  SHOP_FUNCTION void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!done_) changed_.wait(lock);
    sold = 1;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

void LeavesAPool() {
  Pool pool;
  std::vector<std::thread> workers;
  for (int i = 0; i < 12; ++i) {
    workers.emplace_back([&] {
      pool.Work();
      sold = 2;
    });
  }
  for (std::thread& worker : workers) worker.join();
}

SHOP_FUNCTION void OpensALine() {
  EXPECT_TRUE(ward::Environment::Default().CreateTransportPair().ok());
}

SHOP_FUNCTION void Listen(ward::Transport& end) {
  std::array<char, 1> byte;
  std::vector<ward::FileDescriptor> none;
  (void)end.Receive(absl::MakeSpan(byte), 0, none, absl::InfiniteFuture());
  sold = 1;
}

void BothListen() {
  auto ends = ward::Environment::Default().CreateTransportPair();
  ASSERT_TRUE(ends.ok());
  std::thread other([&] {
    Listen(*ends->second);
    sold = 2;
  });
  Listen(*ends->first);
  other.join();
}

// Whoever comes after one that left with the lock waits behind it.
SHOP_FUNCTION void QueueForTheTill() {
  std::mutex till;
  std::thread([&] { till.lock(); }).join();
  std::vector<std::thread> queue;
  for (int i = 0; i < 3; ++i) {
    queue.emplace_back([&] {
      Serve(till);
      sold = 2;
    });
  }
  for (std::thread& customer : queue) customer.join();
}

std::mutex ledger_mutex;

SHOP_FUNCTION void CloseTheLedger() {
  const std::lock_guard<std::mutex> lock(ledger_mutex);
  sold = 1;
}

void OutlivesABookkeeper() {
  auto bookkeeper = ward::Environment::Default().Fork({}, [] {
    ledger_mutex.lock();
    absl::SleepFor(absl::InfiniteDuration());
    return 0;
  });
  ASSERT_TRUE(bookkeeper.ok());
  absl::SleepFor(absl::Seconds(1));
  ASSERT_TRUE((*bookkeeper)->Kill(SIGKILL).ok());
  ASSERT_TRUE((*bookkeeper)->Wait(absl::InfiniteFuture()).ok());
  CloseTheLedger();
  sold = 2;
}

SHOP_FUNCTION void Await(const absl::Notification& opened) {
  opened.WaitForNotification();
  sold = 1;
}

void AwaitsNobody() {
  const absl::Notification opened;
  Await(opened);
}

void SellsBeforeItOpens() {
  sold = 0;
  std::thread clerk([] { EXPECT_EQ(sold, 1); });
  sold = 1;
  clerk.join();
}

void BreaksDown() {
  std::mutex till;
  std::thread clerk([&] {
    Serve(till);
    std::terminate();
  });
  clerk.join();
}

void FailsAndThenWaits() {
  EXPECT_EQ(sold, -1);
  LocksTwice();
}

SHOP_FUNCTION void WaitForMore() {
  std::mutex mutex;
  std::condition_variable more;
  std::unique_lock<std::mutex> lock(mutex);
  more.wait(lock);
  sold = 1;
}

void WaitsAfterAJoin() {
  std::thread([] { sold = 2; }).join();
  WaitForMore();
}

SHOP_FUNCTION void ReadAgain(absl::Mutex& prices) {
  const absl::ReaderMutexLock lock(&prices);
  sold = 1;
}

SHOP_FUNCTION void ReadTwice(absl::Mutex& prices) {
  const absl::ReaderMutexLock lock(&prices);
  ReadAgain(prices);
  sold = 2;
}

void ReadsTwice() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  absl::Mutex prices;
  std::thread writer([&] {
    const absl::WriterMutexLock lock(&prices);
    sold = 3;
  });
  ReadTwice(prices);
  writer.join();
}

SHOP_FUNCTION void TakeBoth(std::timed_mutex& first, std::timed_mutex& second) {
  const std::lock_guard<std::timed_mutex> lock(first);
  while (!second.try_lock_for(std::chrono::milliseconds(1))) sold = 1;
  second.unlock();
}

void RetriesForEver() {
  std::timed_mutex shelf;
  std::timed_mutex cellar;
  std::thread other([&] { TakeBoth(cellar, shelf); });
  TakeBoth(shelf, cellar);
  other.join();
}

SHOP_FUNCTION void TakeInAnHour(std::timed_mutex& mutex) {
  if (mutex.try_lock_for(std::chrono::hours(1))) mutex.unlock();
  sold = 1;
}

// Who waits for both could go on, if there were not the one who counts.
SHOP_FUNCTION void TakeKey(pthread_mutex_t& key) {
  pthread_mutex_lock(&key);
  sold = 1;
}

SHOP_FUNCTION void GiveKeyBack(pthread_mutex_t& key) {
  pthread_mutex_unlock(&key);
  sold = 2;
}

void GivesAnothersKeyBack(int type) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, type);
  pthread_mutex_t key;
  pthread_mutex_init(&key, &attributes);
  pthread_mutexattr_destroy(&attributes);
  TakeKey(key);
  std::thread clerk([&] { GiveKeyBack(key); });
  clerk.join();
}

void GivesAKeyBackTwice() {
  pthread_mutex_t key = PTHREAD_MUTEX_INITIALIZER;
  TakeKey(key);
  GiveKeyBack(key);
  GiveKeyBack(key);
}

std::shared_mutex shelves;

SHOP_FUNCTION void LeaveShelves() {
  shelves.unlock();
  sold = 2;
}

void LeavesAnothersShelves() {
  shelves.lock();
  std::thread clerk([] { LeaveShelves(); });
  clerk.join();
}

void WaitsForAnHourWhileOneCounts() {
  std::timed_mutex shelf;
  std::timed_mutex cellar;
  const std::lock_guard<std::timed_mutex> first(shelf);
  std::thread other([&] {
    const std::lock_guard<std::timed_mutex> second(cellar);
    const std::lock_guard<std::timed_mutex> third(shelf);
  });
  absl::SleepFor(absl::Seconds(1));
  std::thread counting([] {
    while (true) ward::testing::SchedulingPoint();
  });
  TakeInAnHour(cellar);
  counting.join();
  other.join();
}

SHOP_FUNCTION bool WaitOnce(std::mutex& mutex, std::condition_variable& come,
                            const bool& has_come) {
  std::unique_lock<std::mutex> lock(mutex);
  // NOLINTNEXTLINE(bugprone-spuriously-wake-up-functions): that is the bug.
  if (!has_come) come.wait(lock);
  sold = 1;
  return has_come;
}

void WaitsWithoutALoop() {
  std::mutex mutex;
  std::condition_variable come;
  bool has_come = false;
  std::thread other([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    has_come = true;
    come.notify_one();
  });
  EXPECT_TRUE(WaitOnce(mutex, come, has_come));
  other.join();
}

SHOP_FUNCTION void Order(int counter) {
  char answer = 'x';
  (void)!write(counter, &answer, 1);
  (void)!read(counter, &answer, 1);
  sold = 1;
}

SHOP_FUNCTION void Answer(int kitchen, std::mutex& till) {
  char answer;
  (void)!read(kitchen, &answer, 1);
  const std::lock_guard<std::mutex> lock(till);
  (void)!write(kitchen, &answer, 1);
  sold = 2;
}

void OrdersUnderALock() {
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const ward::FileDescriptor counter(ends[0]);
  const ward::FileDescriptor kitchen(ends[1]);
  std::mutex till;
  std::thread cook([&] { Answer(kitchen.get(), till); });
  {
    const std::lock_guard<std::mutex> lock(till);
    Order(counter.get());
  }
  cook.join();
}

SHOP_FUNCTION void Listen(int bell, int door) {
  std::array<pollfd, 2> polled = {pollfd{bell, POLLIN, 0},
                                  pollfd{door, POLLIN, 0}};
  poll(polled.data(), polled.size(), -1);
  sold = 1;
}

void NobodyRings() {
  std::array<int, 2> ends;
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const ward::FileDescriptor bell(ends[0]);
  const ward::FileDescriptor button(ends[1]);
  ward::FileDescriptor door(eventfd(0, EFD_CLOEXEC));
  std::thread waiter([&] { Listen(bell.get(), door.get()); });
  absl::SleepFor(absl::Seconds(1));
  door.Reset();
  waiter.join();
}

std::mutex balance_mutex;
int balance = 0;

SHOP_FUNCTION int Balance() {
  const std::lock_guard<std::mutex> lock(balance_mutex);
  return balance;
}

SHOP_FUNCTION void SetBalance(int amount) {
  const std::lock_guard<std::mutex> lock(balance_mutex);
  balance = amount;
}

SHOP_FUNCTION void Deposit(int amount) {
  SetBalance(Balance() + amount);
  sold = 1;
}

void LosesAnUpdate() {
  balance = 0;
  std::thread other([] {
    Deposit(2);
    sold = 2;
  });
  Deposit(1);
  other.join();
  EXPECT_EQ(balance, 3);
}

}  // namespace
}  // namespace shop

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// What is said of a run of `body` that fails.
std::string Told(absl::FunctionRef<void()> body, ExploreOptions options = {}) {
  options.runs = 5000;
  const Exploration found = FindFailure(options, body);
  if (!found.failure.has_value()) return "no run failed";
  EXPECT_TRUE(found.failure->replayed);
  std::string told = ExplainFailure(options, *found.failure, body);
  std::cout << told << std::endl;
  return told;
}

std::string FirstParagraph(std::string_view text) {
  return std::string(text.substr(0, text.find("\n\n") + 1));
}

// Without namespaces, and a class's name, which compilers leave out of some.
std::string Unqualified(std::string_view told) {
  return absl::StrReplaceAll(told, {{"shop::", ""}, {"Pool::", ""}});
}

// The same, of a deadlock.
std::string Deadlock(absl::FunctionRef<void()> body) {
  std::string told = Unqualified(FirstParagraph(Told(body)));
  EXPECT_LT(std::count(told.begin(), told.end(), '\n'), 40);
  EXPECT_THAT(told, Not(HasSubstr("std::")));
  EXPECT_THAT(told, Not(HasSubstr("absl::")));
  EXPECT_THAT(told, Not(HasSubstr("ward::testing::")));
  return told;
}

TEST(Deadlock, OfTwoLocksIsACircle) {
  const std::string told = Deadlock(shop::MovesBothWays);
  EXPECT_THAT(told, StartsWith("deadlock: 2 threads wait for one another\n"));
  EXPECT_THAT(
      told, ContainsRegex("\n  thread 0 \\(main\\) is waiting for mutex [12], "
                          "which thread 1 has, in\n"
                          "      Move .*explanations_test.cc:[0-9]+\n"
                          "(      .*\n)*"
                          "    It has mutex [12], taken in\n"
                          "      Move .*explanations_test.cc:[0-9]+\n"
                          "(      .*\n)*"
                          "  thread 1 is waiting for mutex [12], which "
                          "thread 0 \\(main\\) has, in\n"));
}

TEST(Deadlock, OfAbseilsLocksHasTheirNames) {
  const std::string told = Deadlock(shop::SellsWhileAudited);
  EXPECT_THAT(told, StartsWith("deadlock: 2 threads wait for one another\n"));
  EXPECT_THAT(
      told, AllOf(ContainsRegex("waiting for mutex `book_mutex`, which thread "
                                "1 has, in\n      Sell "),
                  ContainsRegex("It has mutex `till_mutex`, taken in\n      "
                                "Sell "),
                  ContainsRegex("It has mutex `book_mutex`, taken in\n      "
                                "Audit ")));
}

TEST(Deadlock, OfThreeThreadsIsACircle) {
  const std::string told = Deadlock(shop::ThreeDine);
  EXPECT_THAT(told, StartsWith("deadlock: 3 threads wait for one another\n"));
  EXPECT_THAT(told, HasSubstr("waiting for mutex `forks`, which thread "));
  EXPECT_THAT(told,
              HasSubstr(absl::StrCat("mutex `forks+0x",
                                     absl::Hex(sizeof(pthread_mutex_t)), "`")));
  EXPECT_THAT(told, HasSubstr(absl::StrCat(
                        "mutex `forks+0x",
                        absl::Hex(2 * sizeof(pthread_mutex_t)), "`")));
  EXPECT_THAT(told,
              ContainsRegex("The others:\n  thread 0 \\(main\\) waits for "
                            "the end of thread 1, in ThreeDine"));
}

TEST(Deadlock, OfALockAndAJoinIsACircle) {
  const std::string told = Deadlock(shop::JoinsUnderALock);
  EXPECT_THAT(told, StartsWith("deadlock: 2 threads wait for one another\n"));
  EXPECT_THAT(told,
              ContainsRegex("thread 0 \\(main\\) waits for the end of thread "
                            "1, in\n      Close .*\n(      .*\n)*"
                            "    It has mutex 1, taken in\n      Close "));
  EXPECT_THAT(told, ContainsRegex("thread 1 is waiting for mutex 1, which "
                                  "thread 0 \\(main\\) has, in\n"
                                  "      Serve "));
}

TEST(Deadlock, OfAnUpgradeIsOneWithItself) {
  const std::string told = Deadlock(shop::UpgradesALock);
  EXPECT_THAT(told,
              StartsWith("deadlock: thread 0 (main) waits for itself\n"
                         "  thread 0 (main) is waiting to write under "
                         "reader-writer lock 1, which it has itself to read, "
                         "in\n      Reprice "));
  EXPECT_THAT(told, HasSubstr("    It has reader-writer lock 1, taken in\n"
                              "      Reprice "));
}

// Each of them waits for itself, too, which does not take the other one.
TEST(Deadlock, OfTwoUpgradesIsOneWithItselfAndSaysWhoElseReads) {
  const std::string told = Deadlock(shop::TwoUpgradeALock);
  EXPECT_THAT(told,
              StartsWith("deadlock: thread 0 (main) waits for itself\n"
                         "  thread 0 (main) is waiting to write under "
                         "reader-writer lock 1, which it and thread 1 have to "
                         "read, in\n      Reprice "));
  EXPECT_THAT(told, HasSubstr("    It has reader-writer lock 1, taken in\n"
                              "      Reprice "));
  EXPECT_THAT(told, HasSubstr("The others:\n  thread 1 is waiting to write "
                              "under reader-writer lock 1, which thread 0 "
                              "(main) and it have to read, in Reprice "));
}

TEST(Deadlock, OfALockThatIsTakenTwiceIsOneWithItself) {
  const std::string told = Deadlock(shop::LocksTwice);
  EXPECT_THAT(told, StartsWith("deadlock: thread 0 (main) waits for itself\n"));
  EXPECT_THAT(told, ContainsRegex("which it has itself, in\n"
                                  "      Count .*\n"
                                  "      CountAll .*\n"));
  EXPECT_THAT(told, ContainsRegex("taken in\n      CountAll "));
}

TEST(Deadlock, OfAStaticVariablesInitialisationIsACircle) {
  const std::string told = Deadlock(shop::InitialisesUnderALock);
  EXPECT_THAT(told, StartsWith("deadlock: 2 threads wait for one another\n"));
  EXPECT_THAT(told, HasSubstr("`catalogue_mutex`"));
  EXPECT_THAT(told, HasSubstr("waiting for the initialisation of "
                              "`Catalogue()::kCatalogue`, which thread"));
  EXPECT_THAT(told, HasSubstr("    It has begun the initialisation of "
                              "`Catalogue()::kCatalogue`, in\n"
                              "      Catalogue "));
}

TEST(Deadlock, OfThreadsThatWaitAlikeTellsThemAtOnce) {
  const std::string told = Deadlock(shop::LeavesAPool);
  EXPECT_THAT(told, StartsWith("deadlock: all threads wait"));
  EXPECT_THAT(told, ContainsRegex("\n  12 threads \\(1, 2, 3, 4, 5, 6, 7 and 5 "
                                  "more\\) are waiting for condition 1, in "
                                  "Work .*explanations_test.cc:[0-9]+\n"));
}

TEST(Deadlock, WithoutLocksSaysWhoWaitsWhere) {
  const std::string told = Deadlock(shop::BothListen);
  EXPECT_THAT(told, StartsWith("deadlock: all threads wait"));
  EXPECT_THAT(told, ContainsRegex("\n  thread 0 \\(main\\) is waiting for the "
                                  "peer to send, in Listen "));
  EXPECT_THAT(told, ContainsRegex("\n  thread 1 is waiting for the peer to "
                                  "send, in Listen "));
}

TEST(Deadlock, BehindAThreadThatHasEndedSaysSo) {
  const std::string told = Deadlock(shop::QueueForTheTill);
  EXPECT_THAT(
      told, ContainsRegex("\n  3 threads \\(2, 3 and 4\\) are waiting for "
                          "mutex 1, which thread 1 \\(which has ended\\) has, "
                          "in Serve "));
}

TEST(Deadlock, BehindAProcessThatWasKilledSaysSo) {
  const std::string told = Deadlock(shop::OutlivesABookkeeper);
  EXPECT_THAT(told,
              ContainsRegex("is waiting for mutex `ledger_mutex`, "
                            "which thread 1 .*\\(which was killed\\) has, "
                            "in CloseTheLedger "));
}

TEST(Deadlock, AtANotificationSaysWhoWaitsWhere) {
  const std::string told = Deadlock(shop::AwaitsNobody);
  EXPECT_THAT(told, StartsWith("deadlock: all threads wait"));
  EXPECT_THAT(told,
              ContainsRegex("\n  thread 0 \\(main\\) is waiting for a (mutex, "
                            "condition or notification|condition under mutex "
                            "[0-9]+), in Await "));
}

TEST(Deadlock, OverAConnectionIsACircleOfThoseWhoUsedIt) {
  const std::string told = Deadlock(shop::OrdersUnderALock);
  EXPECT_THAT(told, StartsWith("deadlock: 2 threads wait for one another\n"));
  EXPECT_THAT(told,
              ContainsRegex(
                  "thread 0 \\(main\\) is reading descriptor [0-9]+ \\(a Unix "
                  "socket\\), which thread 1 used, too, in\n      Order "));
  EXPECT_THAT(told, HasSubstr("    It has mutex 1, taken in\n"));
  EXPECT_THAT(told,
              ContainsRegex("thread 1 is waiting for mutex 1, which thread 0 "
                            "\\(main\\) has, in\n      Answer "));
  EXPECT_THAT(told, ContainsRegex("    Descriptor [0-9]+ was opened in\n"
                                  "      OrdersUnderALock "));
}

TEST(Deadlock, OverDescriptorsSaysWhichTheyAre) {
  const std::string told = Deadlock(shop::NobodyRings);
  EXPECT_THAT(told, StartsWith("deadlock: all threads wait"));
  EXPECT_THAT(told,
              ContainsRegex(
                  "thread 1 is polling descriptors [0-9]+ \\(a pipe's reading "
                  "end\\), [0-9]+ \\(an eventfd; it was closed meanwhile, "
                  "which wakes nobody\\), in Listen "));
  EXPECT_THAT(told, ContainsRegex("    Descriptor [0-9]+ was opened in\n"
                                  "      NobodyRings "));
}

TEST(Deadlock, ComesAfterWhatHasFailedBefore) {
  const std::string told = Told(shop::FailsAndThenWaits);
  EXPECT_THAT(told, StartsWith("testing/explanations_test.cc:"));
  EXPECT_THAT(told,
              HasSubstr("\ndeadlock: thread 0 (main) waits for itself\n"));
}

TEST(Deadlock, AfterAJoinIsNotInIt) {
  const std::string told = Deadlock(shop::WaitsAfterAJoin);
  EXPECT_THAT(told, ContainsRegex("\n  thread 0 \\(main\\) is waiting for "
                                  "condition 1, in WaitForMore "));
}

TEST(Deadlock, IsNoneIfLocksAreTriedAgainForEver) {
  ExploreOptions options;
  options.max_steps = 200;
  const std::string told = Told(shop::RetriesForEver, options);
  EXPECT_THAT(told, StartsWith("no end after 200 steps"));
  EXPECT_THAT(told, Not(HasSubstr("deadlock:")));
}

TEST(Deadlock, IsNoneOfOneThatWaitsForATime) {
  ExploreOptions options;
  options.max_steps = 1000;
  const std::string told =
      Unqualified(Told(shop::WaitsForAnHourWhileOneCounts, options));
  EXPECT_THAT(told, StartsWith("no end after 1000 steps"));
  EXPECT_THAT(told, Not(HasSubstr("wait for one another")));
  EXPECT_THAT(told,
              ContainsRegex("\n  thread 0 \\(main\\) is waiting for mutex "
                            "[12], which thread 1 has, in "
                            "TakeInAnHour "));
}

TEST(Deadlock, OfAReaderBehindAWriterHasTheWriter) {
  const std::string told = Deadlock(shop::ReadsTwice);
  EXPECT_THAT(told,
              ContainsRegex("\n  thread 0 \\(main\\) is waiting for mutex "
                            "[0-9]+, which it has itself to read \\(thread 1 "
                            "waits for it, too\\), in\n      ReadAgain "));
}

TEST(Unlock, OfAnothersMutexTellsBothThreadsAndWhereItWasLocked) {
  for (const int type : {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                         PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP}) {
    const std::string told =
        Unqualified(Told([type] { shop::GivesAnothersKeyBack(type); }));
    const bool is_undefined =
        type == PTHREAD_MUTEX_NORMAL || type == PTHREAD_MUTEX_ADAPTIVE_NP;
    EXPECT_THAT(
        told,
        AllOf(StartsWith(is_undefined
                             ? "a mutex is unlocked by a thread that does not "
                               "have it, which is undefined\n"
                             : "a mutex is unlocked by a thread that does not "
                               "have it, and so stays locked (EPERM)\n"),
              ContainsRegex("\n  By thread 1 of process 1, thread 1, in:\n"
                            "    .*GiveKeyBack.*explanations_test.cc:"),
              HasSubstr("\n  thread 0 (main) has mutex 1, taken in\n"
                        "      TakeKey"),
              HasSubstr("thread 1: FAILS: a mutex is unlocked by")))
        << type;
  }
}

TEST(Unlock, OfWhatNobodyHasSaysSo) {
  EXPECT_THAT(Told(shop::GivesAKeyBackTwice),
              AllOf(StartsWith("a mutex is unlocked that nobody has, which is "
                               "undefined\n"),
                    HasSubstr("GiveKeyBack")));
}

TEST(Unlock, OfAnothersReaderWriterLockTellsBothThreads) {
  EXPECT_THAT(Unqualified(Told(shop::LeavesAnothersShelves)),
              AllOf(StartsWith("a reader-writer lock is unlocked by a thread "
                               "that does not have it, which is undefined\n"),
                    ContainsRegex("in:\n    .*LeaveShelves"),
                    HasSubstr("\n  thread 0 (main) has reader-writer lock "
                              "`shelves`, taken in\n"
                              "      LeavesAnothersShelves")));
}

TEST(Explanation, OfAWaitThatEndsForNoReasonTellsWhich) {
  ExploreOptions options;
  options.delays = true;
  EXPECT_THAT(Unqualified(Told(shop::WaitsWithoutALoop, options)),
              ContainsRegex("=1: a wait of thread 0 \\(main\\) ended for no "
                            "reason, in WaitOnce .*\n      WaitOnce "));
}

TEST(Explanation, OfALostUpdateTellsWhoWasHeldBackWhere) {
  const std::string told = Unqualified(Told(shop::LosesAnUpdate));
  EXPECT_THAT(told, StartsWith("testing/explanations_test.cc:"));
  EXPECT_THAT(
      told,
      ContainsRegex("\nWhat was decided otherwise than by default:\n"
                    "  [0-9]+=1, at step [0-9]+: thread 0 \\(main\\) was held "
                    "back before locking mutex `balance_mutex`, in "
                    "SetBalance .*explanations_test.cc:[0-9]+; "
                    "thread 1 (began|went on, before )"
                    ".*\n"
                    "      SetBalance .*\n"
                    "      Deposit .*\n"
                    "      LosesAnUpdate .*\n"));
  // Threads, and not processes, do something in it.
  EXPECT_THAT(told, ContainsRegex("\nStep by step:\n"));
  EXPECT_THAT(told, ContainsRegex("\n +[0-9]+  thread 1: locking mutex "
                                  "`balance_mutex`, in Balance "));
  EXPECT_THAT(told, ContainsRegex("\n  >>  [0-9]+=1, at step [0-9]+: "));
}

// However much the run has done after it.
TEST(Explanation, HasTheStepAtWhichAnAssertionFailed) {
  const std::string told = Told([] {
    shop::LosesAnUpdate();
    for (int i = 0; i < 100; ++i) shop::Balance();
  });
  EXPECT_THAT(told, ContainsRegex("\n +\\([0-9]+ lines\\)\n"));
  EXPECT_THAT(told, ContainsRegex("\n        thread 0 \\(main\\): FAILS: "
                                  "testing/explanations_test.cc:[0-9]+: "
                                  "Expected equality of these values:\n"));
}

TEST(Explanation, OfAThreadThatComesFirstSaysThatItBegan) {
  EXPECT_THAT(Unqualified(Told(shop::SellsBeforeItOpens)),
              ContainsRegex("=1, at step [0-9]+: thread 0 \\(main\\) was held "
                            "back after starting a thread(, in .*)?; thread 1 "
                            "began\n"));
}

// What its handler reads to show stacks is no part of it.
TEST(Explanation, OfACrashEndsWithIt) {
  const std::string told = Told(shop::BreaksDown);
  EXPECT_THAT(told, StartsWith("a crash: "));
  EXPECT_THAT(told, ContainsRegex("\n +[0-9]+  thread 1: "));
  EXPECT_THAT(told, Not(HasSubstr("reading a descriptor")));
}

TEST(Explanation, OfACallThatFailedSaysHow) {
  ExploreOptions options;
  options.faults = true;
  const std::string told = Unqualified(Told(shop::OpensALine, options));
  EXPECT_THAT(
      told, ContainsRegex(
                "=[12], at step [0-9]+: what thread 0 \\(main\\) called failed "
                "\\((EMFILE|ENOMEM)\\) .*, in OpensALine "));
}

// `text` as docs/testing.md has it, without the lines' numbers.
std::string AsOnThePage(std::string text) {
  text = absl::StrReplaceAll(
      text, {{"testing/explanations_test.cc", "my/shop_test.cc"}});
  std::string without;
  bool is_number = false;
  for (size_t i = 0; i < text.size(); ++i) {
    is_number = (is_number || absl::EndsWith(text.substr(0, i), ".cc:")) &&
                absl::ascii_isdigit(text[i]);
    if (!is_number) without += text[i];
  }
  return without;
}

TEST(TestingPage, ShowsWhatIsSaid) {
#ifdef __OPTIMIZE__
  GTEST_SKIP() << "Functions may be inlined then.";
#endif
  const std::ifstream file("docs/testing.md");
  std::ostringstream text;
  text << file.rdbuf();
  std::string page = text.str();
  page.erase(0, page.find("### What a failure says"));
  page.resize(page.find("\n### "));
  const std::string told = AsOnThePage(
      absl::StrCat(Told(shop::SellsWhileAudited), Told(shop::LosesAnUpdate)));
  int blocks = 0;
  for (const std::string_view paragraph : absl::StrSplit(page, "\n\n")) {
    if (!absl::StartsWith(paragraph, "    ")) continue;
    ++blocks;
    std::string block;
    for (const std::string_view line : absl::StrSplit(paragraph, '\n')) {
      absl::StrAppend(&block, absl::StripPrefix(line, "    "), "\n");
    }
    EXPECT_THAT(told, HasSubstr(AsOnThePage(block)));
  }
  EXPECT_EQ(blocks, 4);
}

// The same each time, and of the failure that was found.
TEST(Explanation, IsTheSameOnceMore) {
  ExploreOptions options;
  const Exploration found = FindFailure(options, shop::LosesAnUpdate);
  ASSERT_TRUE(found.failure.has_value());
  const std::string told =
      ExplainFailure(options, *found.failure, shop::LosesAnUpdate);
  EXPECT_THAT(told, HasSubstr("SetBalance"));
  EXPECT_EQ(ExplainFailure(options, *found.failure, shop::LosesAnUpdate), told);
}

}  // namespace
}  // namespace ward::testing
