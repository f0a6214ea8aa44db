// What Bazel, and whoever runs a test, tell it through the environment.

#ifndef WARD_TESTING_ENVIRONMENT_VARIABLE_H_
#define WARD_TESTING_ENVIRONMENT_VARIABLE_H_

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "absl/strings/numbers.h"

namespace ward::testing {

// Empty if it is not set.
inline std::string_view EnvironmentVariable(const char* name) {
  // No test changes its environment while others read it.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

// `otherwise` if it is not set. What is no number fails the program.
inline uint64_t EnvironmentNumber(const char* name, uint64_t otherwise) {
  const std::string_view value = EnvironmentVariable(name);
  uint64_t number;
  if (value.empty()) return otherwise;
  if (absl::SimpleAtoi(value, &number)) return number;
  std::cerr << name << " is no number: \"" << value << "\"\n";
  std::abort();
}

// Which of --runs_per_test this is, from 1 on. Bazel 4 tells it by the second
// name alone.
inline uint64_t RunNumber() {
  return EnvironmentNumber("TEST_RUN_NUMBER",
                           EnvironmentNumber("TEST_RANDOM_SEED", 1));
}

}  // namespace ward::testing

#endif  // WARD_TESTING_ENVIRONMENT_VARIABLE_H_
