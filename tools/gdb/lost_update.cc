// An account that loses an update, for gdb_test and docs/testing.md.

#include <mutex>
#include <thread>

#include "gtest/gtest.h"
#include "ward/testing/explore.h"

namespace {

std::mutex mutex;
int balance;

int Balance() {
  const std::lock_guard<std::mutex> lock(mutex);
  return balance;
}

void SetBalance(int amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  balance = amount;
}

void Deposit(int amount) {
  const int found = Balance();
  SetBalance(found + amount);
}

TEST(Account, LosesNoUpdate) {
  ward::testing::Explore({}, [] {
    SetBalance(0);
    std::thread other([] { Deposit(2); });
    Deposit(1);
    other.join();
    EXPECT_EQ(Balance(), 3);
  });
}

}  // namespace
