// Where a run is, for a debugger: tools/gdb/ward.py finds all of this by its
// name, without debugging information. A run is the same each time, so it goes
// back to an earlier moment by running the program again, and stopping sooner.

#ifndef WARD_TESTING_SIMULATOR_DEBUGGED_H_
#define WARD_TESTING_SIMULATOR_DEBUGGED_H_

#include <cstdint>

namespace ward::testing {

// Words, in this order. They count what was in all runs of this process.
struct Debugged {
  // How often a thread went on: between two of these, no other one did.
  volatile uint64_t turns = 0;
  // Choices, and how many there were before this run.
  volatile uint64_t decisions = 0;
  volatile uint64_t decisions_before = 0;
  // Set by the debugger: where to call StopForDebugger, if not before.
  volatile uint64_t stop_at_turn = UINT64_MAX;
  volatile uint64_t stop_at_decision = UINT64_MAX;
  // What was decided last, or why it cannot go on; ends with a zero.
  const char* volatile text = "";

  bool wants_turn() const { return turns >= stop_at_turn; }
  bool wants_decision() const { return decisions >= stop_at_decision; }
};

extern Debugged debugged;

// Does nothing: a place for a breakpoint.
void StopForDebugger();

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_DEBUGGED_H_
