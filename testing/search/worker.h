// A child process that makes runs of an exploration. For this folder's
// sources.

#ifndef WARD_TESTING_SEARCH_WORKER_H_
#define WARD_TESTING_SEARCH_WORKER_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/exploration.h"
#include "ward/testing/search/explored_run.h"
#include "ward/testing/search/strategies.h"
#include "ward/testing/simulator/coverage.h"
#include "ward/testing/simulator/run_listener.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {

// Makes the strategy of a run, by its number.
using StrategyOf = std::function<std::unique_ptr<Strategy>(uint64_t run)>;

// What a child is to do: the run that its record has, and those after it that
// are its own, until one fails.
struct Work {
  ExploreOptions options;
  // See OwnerOf.
  size_t worker = 0;
  size_t workers = 1;
  // Of run 0.
  uint64_t seed = 0;
  // What is known of the body. Null: nothing, as kRandom needs.
  const Profile* profile = nullptr;
  // What the dull run has seen. Null: nothing.
  const Coverage* dull = nullptr;
  // Instead of what the search would do; must outlive the child.
  const StrategyOf* strategy = nullptr;
  // What is interleaved goes into the record's coverage.
  bool covers = false;
  // After a run that deviates nowhere.
  bool warm = false;
  // Runs whose assertions fail otherwise than this do not count.
  const std::string* failure = nullptr;
  Keep keep = Keep::kIfItFails;
  // See Run.
  RunEvents* events = nullptr;
  RunListener* listener = nullptr;
  int processor = 0;
};

// Whether pairs of operations are to be told, and not only counted.
inline bool TellsPairs() { return EnvironmentNumber("WARD_COVERAGE", 0) != 0; }

class Worker {
 public:
  Worker();

  // Those that there is one for, of which this process may use each.
  static std::vector<int> Processors();

  Record& record() { return *record_; }
  bool running() const { return pid_ > 0; }
  int pidfd() const { return pidfd_.get(); }

  // Starts a child, whose runs are below `end`. What it must know of earlier
  // ones is in the record. It ends with this process.
  void Start(const Work& work, uint64_t end, absl::FunctionRef<void()> body);

  // The child has ended: how it did is in the record.
  void Reap();

  // Makes the dull run, whose profile the record then has.
  void MakeProfile(const ExploreOptions& options,
                   absl::FunctionRef<void()> body);

  // Makes the one run that `deviations` tell; `warm`: see Work; `events` and
  // `listener`: see Run.
  void Replay(const ExploreOptions& options, const Deviations& deviations,
              bool warm, absl::FunctionRef<void()> body,
              Keep keep = Keep::kAlways, RunEvents* events = nullptr,
              RunListener* listener = nullptr);

  // What the run has printed; of much, the beginning and the end. The same of
  // the stacks of one that was stuck.
  std::string Output() const;
  std::string Stacks() const;

 private:
  // Makes one run, and waits for it.
  void MakeOne(Work work, absl::FunctionRef<void()> body);
  int Wait();
  std::string Printed(off_t from, off_t size) const;
  std::string Shortened(off_t from, off_t end) const;
  off_t StacksAt() const;

  SharedRecord record_;
  FileDescriptor output_;
  FileDescriptor pidfd_;
  pid_t pid_ = 0;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SEARCH_WORKER_H_
