#include "ward/channel/spin.h"

#include <sched.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward {
namespace {

using ::testing::ElementsAre;

constexpr absl::Time kNever = absl::InfiniteFuture();

int Processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

class SpinTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Processors() == 1) GTEST_SKIP() << "nobody spins on one processor";
  }
};

TEST_F(SpinTest, LooksUntilItComes) {
  Spin spin(absl::InfiniteDuration());
  int looks = 0;
  EXPECT_TRUE(spin.Until(kNever, [&] { return ++looks == 1000; }));
  EXPECT_EQ(looks, 1000);
}

TEST_F(SpinTest, LooksOnceAfterTheDeadline) {
  Spin spin(absl::InfiniteDuration());
  int looks = 0;
  EXPECT_FALSE(spin.Until(absl::InfinitePast(), [&] {
    ++looks;
    return false;
  }));
  EXPECT_EQ(looks, 1);
}

TEST_F(SpinTest, EachWaitInVainDoublesThoseThatAreLeftToTheKernel) {
  Spin spin(absl::Microseconds(10));
  std::vector<int> spun;
  const auto wait = [&](int number, bool comes) {
    bool looked = false;
    spin.Until(kNever, [&] {
      looked = true;
      return comes;
    });
    if (looked) spun.push_back(number);
  };
  for (int i = 0; i < 5000; ++i) wait(i, /*comes=*/false);
  EXPECT_THAT(spun, ElementsAre(0, 2, 6, 14, 30, 62, 126, 254, 510, 1022, 2046,
                                3070, 4094));
  spun.clear();
  for (int i = 5000; i < 5200; ++i) wait(i, /*comes=*/true);
  EXPECT_EQ(spun.front(), 5118);
  EXPECT_EQ(spun.size(), 82);
}

TEST_F(SpinTest, AsManySpinAsLeaveOneProcessor) {
  std::atomic<int> spinning = 0;
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int i = 1; i < Processors(); ++i) {
    threads.emplace_back([&] {
      Spin spin(absl::InfiniteDuration());
      bool counted = false;
      spin.Until(kNever, [&] {
        if (!counted) ++spinning;
        counted = true;
        return done.load();
      });
    });
  }
  while (spinning < Processors() - 1) sched_yield();
  Spin spin(absl::InfiniteDuration());
  bool looked = false;
  const auto look = [&] { return looked = true; };
  EXPECT_FALSE(spin.Until(kNever, look));
  EXPECT_FALSE(looked);
  // Those of its parent are none of a fork's.
  const pid_t child = fork();
  if (child == 0) _exit(spin.Until(kNever, look) ? 0 : 1);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(spin.Until(kNever, look));
}

}  // namespace
}  // namespace ward
