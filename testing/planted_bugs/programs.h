// Small programs of threads with one bug each, of the families that benchmarks
// of concurrency testing use, written anew from how they are described: to
// compare searches with what is published of others.

#ifndef WARD_TESTING_PLANTED_BUGS_PROGRAMS_H_
#define WARD_TESTING_PLANTED_BUGS_PROGRAMS_H_

#include <functional>
#include <string>
#include <vector>

namespace ward::testing {

struct Program {
  std::string name;

  // One run, in a simulation: a failed expectation, or a deadlock, is the bug
  // seen. `repaired`: without it.
  std::function<void(bool repaired)> body;
};

std::vector<Program> Programs();

}  // namespace ward::testing

#endif  // WARD_TESTING_PLANTED_BUGS_PROGRAMS_H_
