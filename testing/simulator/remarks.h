// What a simulation could not decide or see: said once, by name and place.

#ifndef WARD_TESTING_SIMULATOR_REMARKS_H_
#define WARD_TESTING_SIMULATOR_REMARKS_H_

#include <string_view>

namespace ward::testing {

class Remarks {
 public:
  // Of a call of `function` by the calling thread, with its stack; once in a
  // process. `why` is a clause: "which asks the world".
  static void Add(std::string_view function, std::string_view why);

  // Gets them from now on, instead of standard error; null: that again.
  static void SetSink(void (*sink)(std::string_view remark));

  // The first line, which says what it is about.
  static std::string_view Subject(std::string_view remark) {
    return remark.substr(0, remark.find('\n'));
  }

  // Which function's call that is, as "alarm", or "syscall, with SYS_poll";
  // empty if it is about none.
  static std::string_view Function(std::string_view subject);
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_REMARKS_H_
