// For the simulator's own functions, and in signal handlers.

#ifndef WARD_TESTING_SIMULATOR_NO_SCHEDULING_POINTS_H_
#define WARD_TESTING_SIMULATOR_NO_SCHEDULING_POINTS_H_

namespace ward::testing {

// While one exists, nothing that //testing/interception stands in front of is a
// scheduling point on this thread, or waits in the schedule; nor are the
// branches of code that is compiled with -fsanitize-coverage=trace-pc: of
// templates and inline functions that the simulator shares with such code, the
// linker keeps one copy, and it may be the one with points.
class NoSchedulingPoints {
 public:
  NoSchedulingPoints();
  NoSchedulingPoints(const NoSchedulingPoints&) = delete;
  NoSchedulingPoints& operator=(const NoSchedulingPoints&) = delete;
  ~NoSchedulingPoints();

  static bool Exist();

  // For code of the user's that the simulator calls: while one exists, there
  // are scheduling points again.
  class Suspended {
   public:
    Suspended();
    Suspended(const Suspended&) = delete;
    Suspended& operator=(const Suspended&) = delete;
    ~Suspended();

   private:
    const int found_;
  };
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_NO_SCHEDULING_POINTS_H_
