#include "ward/testing/simulator/thread_exit.h"

#include <setjmp.h>
#include <unwind.h>

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "absl/functional/function_ref.h"

namespace ward::testing {
namespace {

struct End {
  jmp_buf jump;
  uintptr_t frame;  // Of Call.
  End* outer;
  void* result;
};

thread_local End* end = nullptr;

_Unwind_Reason_Code StopAtEnd(int, _Unwind_Action actions,
                              _Unwind_Exception_Class, _Unwind_Exception*,
                              _Unwind_Context* context, void*) {
  if ((actions & _UA_END_OF_STACK) != 0 ||
      _Unwind_GetCFA(context) > end->frame) {
    longjmp(end->jump, 1);
  }
  return _URC_NO_REASON;
}

// Nothing is to be destroyed in here, which would be, as on the stack below it.
__attribute__((noinline)) void* Call(End& own,
                                     absl::FunctionRef<void*()> body) {
  own.frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  if (setjmp(own.jump) == 0) own.result = body();
  return own.result;
}

}  // namespace

void* CallUntilExit(absl::FunctionRef<void*()> body) {
  End own{};
  own.outer = std::exchange(end, &own);
  // Also where the body leaves by an exception.
  struct Leave {
    ~Leave() { end = end->outer; }
  } const leave;
  return Call(own, body);
}

void ExitThread(void* result) {
  if (end == nullptr) return;
  end->result = result;
  static thread_local _Unwind_Exception exception;
  exception = {};
  _Unwind_ForcedUnwind(&exception, &StopAtEnd, nullptr);
  std::abort();
}

}  // namespace ward::testing
