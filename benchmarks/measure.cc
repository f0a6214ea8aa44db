// One workload of one subject, once: for ward_against_floor, which compares
// them. It prints the mean of a call in microseconds (of "memory" bytes), the
// number of calls, and the slowest client's rate as a share of the median's.

#include <sys/resource.h>

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ward/benchmarks/subject.h"
#include "ward/benchmarks/workloads.h"

namespace ward::benchmarks {
namespace {

std::string Usage() {
  std::string usage =
      "measure ward|floor WORKLOAD NUMBER SECONDS\nWORKLOAD, and what its "
      "NUMBER is:\n";
  for (const Workload& workload : Workloads()) {
    absl::StrAppend(&usage, "  ", workload.name, "  ", workload.number, "\n");
  }
  return usage;
}

// 10,000 connections have as many descriptors on either side.
void AllowDescriptors() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::StatusOr<Measurement> Measure(const std::vector<std::string>& arguments) {
  size_t number = 0;
  double seconds = 0;
  if (arguments.size() != 4 || !absl::SimpleAtoi(arguments[2], &number) ||
      !absl::SimpleAtod(arguments[3], &seconds)) {
    return absl::InvalidArgumentError(Usage());
  }
  const bool is_ward = arguments[0] == "ward";
  if (!is_ward && arguments[0] != "floor") {
    return absl::InvalidArgumentError(Usage());
  }
  for (const Workload& workload : Workloads()) {
    if (workload.name != arguments[1]) continue;
    AllowDescriptors();
    return workload.measure(is_ward ? &MakeWard : &MakeFloor, number,
                            absl::Seconds(seconds));
  }
  return absl::InvalidArgumentError(Usage());
}

int Main(const std::vector<std::string>& arguments) {
  const absl::StatusOr<Measurement> measured = Measure(arguments);
  if (!measured.ok()) {
    std::cerr << measured.status().message() << "\n";
    return EXIT_FAILURE;
  }
  std::cout << measured->value << " " << measured->calls << " "
            << measured->slowest << "\n";
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace ward::benchmarks

int main(int argc, char** argv) {
  return ward::benchmarks::Main({argv + 1, argv + argc});
}
