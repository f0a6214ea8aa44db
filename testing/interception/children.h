// Children that fork(2) has made of a simulated thread. They are real
// processes, in which nothing is simulated: but they have no thread of their
// parent's but the one that has called it, and what the others had locked stays
// so. For this folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_CHILDREN_H_
#define WARD_TESTING_INTERCEPTION_CHILDREN_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

// What a child has to say that its parent is to hear, in memory of both.
class LastWords {
 public:
  LastWords();
  LastWords(const LastWords&) = delete;
  LastWords& operator=(const LastWords&) = delete;
  ~LastWords();

  void Say(const std::string& words);
  // Empty if there are none.
  std::string Said() const;

  // The child waits on, and these are why nothing comes of that; until it does
  // not wait any more.
  void WaitForGood(const std::string& words);
  void GoOn();
  bool WaitsForGood() const;

 private:
  struct Memory {
    size_t size;
    std::array<char, 4000> text;
    std::atomic<bool> waits_for_good;
  };
  Memory* const memory_;
};

// fork(2) by a simulated thread. What pthread_atfork(3) has called before it
// and in the parent is in the schedule; in the child, nothing is.
pid_t ForkInSchedule(Scheduler& scheduler, std::shared_ptr<LastWords> words);

// Whether this process is such a child. Of each that makes threads of its own
// this is said, too: then others may give what one waits for.
bool IsChild();
void ChildHasThreads();

// A wait of the calling thread, as `waiting` says, for what nobody but a thread
// of the same process gives: who has it is `owner`, as gettid(2) has it, or 0
// if that is not known. Where this process is a child that has no such thread,
// this is said to the parent; and the child is ended, if it has gone from there
// with its owner. Else it may be meant to wait until it is killed, which the
// parent knows: see world.cc. Of a child's child nobody knows, and nothing is
// said.
class WaitInChild {
 public:
  explicit WaitInChild(const char* waiting, pid_t owner = 0);
  WaitInChild(const WaitInChild&) = delete;
  WaitInChild& operator=(const WaitInChild&) = delete;
  ~WaitInChild();

 private:
  bool is_said_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_CHILDREN_H_
