// What is measured of a subject: one workload, once.

#ifndef WARD_BENCHMARKS_WORKLOADS_H_
#define WARD_BENCHMARKS_WORKLOADS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/benchmarks/subject.h"

namespace ward::benchmarks {

struct Measurement {
  // The mean of all calls, in microseconds; of "memory" bytes.
  double value = 0;
  int64_t calls = 0;
  // Of several threads, how many calls the slowest made, as a share of the
  // median thread's.
  double slowest = 1;
};

struct Workload {
  std::string_view name;
  // What its number is.
  std::string_view number;
  absl::StatusOr<Measurement> (*measure)(
      const std::function<std::unique_ptr<Subject>(Subject::Options)>& make,
      size_t number, absl::Duration time);
};

// All that there are. Each answer is looked at: a wrong one is an error.
absl::Span<const Workload> Workloads();

}  // namespace ward::benchmarks

#endif  // WARD_BENCHMARKS_WORKLOADS_H_
