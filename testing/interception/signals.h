// What ppoll(2) and its relatives do with signals. For this folder's sources.

#ifndef WARD_TESTING_INTERCEPTION_SIGNALS_H_
#define WARD_TESTING_INTERCEPTION_SIGNALS_H_

#include <signal.h>

namespace ward::testing {

// The signals that the calling simulated thread blocks while it waits, for as
// long as this exists; null leaves them alone.
class WaitingMask {
 public:
  explicit WaitingMask(const sigset_t* mask);
  WaitingMask(const WaitingMask&) = delete;
  WaitingMask& operator=(const WaitingMask&) = delete;
  ~WaitingMask();

  // Whether one has come that this lets through: it ends the wait. The kernel
  // has it until Deliver, so that nobody else knows of it.
  bool HasLetThrough() const;

  // Runs its handler.
  void Deliver() const;

 private:
  const sigset_t* const mask_;
  sigset_t found_{};
};

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_SIGNALS_H_
