#include "ward/testing/simulator/thread_exit.h"

#include <setjmp.h>
#include <unwind.h>

#include <cstdint>
#include <cstdlib>

#include "absl/functional/function_ref.h"

namespace ward::testing {
namespace {

struct End {
  jmp_buf jump;
  uintptr_t frame;  // Of CallUntilExit.
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

}  // namespace

__attribute__((noinline)) void* CallUntilExit(absl::FunctionRef<void*()> body) {
  End own{};
  own.frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  end = &own;
  if (setjmp(own.jump) == 0) own.result = body();
  void* const result = end->result;
  end = nullptr;
  return result;
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
