#include "ward/server/posix/own_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ward {
namespace {

int InFork(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(OwnProcessTest, AForkHasAGenerationOfItsOwn) {
  const int own = ForkGeneration();
  EXPECT_EQ(ForkGeneration(), own);
  const auto fork_of_fork = [own] { return ForkGeneration() != own ? 0 : 1; };
  EXPECT_EQ(InFork(fork_of_fork), 0);
  const auto fork_that_does_not_ask = [&] { return InFork(fork_of_fork); };
  EXPECT_EQ(InFork(fork_that_does_not_ask), 0);
  const auto fork_that_asks = [own, &fork_of_fork] {
    const int generation = ForkGeneration();
    const auto child = [generation, &fork_of_fork] {
      return fork_of_fork() == 0 && ForkGeneration() != generation ? 0 : 2;
    };
    return generation != own ? InFork(child) : 3;
  };
  EXPECT_EQ(InFork(fork_that_asks), 0);
  EXPECT_EQ(ForkGeneration(), own);
}

TEST(OwnProcessTest, ThreadsThatAskAtOnceAreToldTheSame) {
  const auto body = [] {
    std::vector<int> told(8);
    std::vector<std::thread> threads;
    threads.reserve(told.size());
    for (int& one : told) {
      threads.emplace_back([&one] { one = ForkGeneration(); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int one : told) {
      if (one != ForkGeneration()) return 1;
    }
    return 0;
  };
  // Where nobody has asked before.
  EXPECT_EQ(InFork(body), 0);
}

}  // namespace
}  // namespace ward
