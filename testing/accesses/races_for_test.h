// What tests of the checker of accesses expect of programs.

#ifndef WARD_TESTING_ACCESSES_RACES_FOR_TEST_H_
#define WARD_TESTING_ACCESSES_RACES_FOR_TEST_H_

#include <cstdint>
#include <functional>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/explore.h"

namespace ward::testing {

constexpr uint64_t kRuns = 10000;

inline ExploreOptions Runs(uint64_t runs = kRuns) {
  ExploreOptions options;
  options.runs = runs;
  return options;
}

// How it fails, and in which run.
inline Exploration::Failure Failure(const std::function<void()>& body) {
  const Exploration exploration = FindFailure(Runs(), body);
  EXPECT_TRUE(exploration.failure.has_value()) << "no run failed";
  Exploration::Failure failure =
      exploration.failure.value_or(Exploration::Failure());
  std::cout << "run " << failure.run << ", " << failure.deviations.size()
            << " deviations\n"
            << failure.what << std::endl;
  return failure;
}

inline void ExpectFailure(std::string_view what,
                          const std::function<void()>& body) {
  const Exploration::Failure failure = Failure(body);
  EXPECT_THAT(failure.what, ::testing::StartsWith(std::string(what)));
  EXPECT_TRUE(failure.replayed);
}

inline void ExpectRace(const std::function<void()>& body) {
  ExpectFailure("a data race: ", body);
}

inline void ExpectNone(const std::function<void()>& body,
                       uint64_t runs = kRuns) {
  const Exploration exploration = FindFailure(Runs(runs), body);
  EXPECT_FALSE(exploration.failure.has_value())
      << exploration.failure->what << exploration.failure->transcript;
  EXPECT_EQ(exploration.runs, EnvironmentNumber("WARD_RUNS", runs));
}

inline void InTwoThreads(const std::function<void()>& first,
                         const std::function<void()>& second) {
  std::thread thread(first);
  second();
  thread.join();
}

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_RACES_FOR_TEST_H_
