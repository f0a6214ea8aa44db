// What users write, called so that an exception of it ends no more than what it
// belongs to.

#ifndef WARD_SERVER_USER_CODE_H_
#define WARD_SERVER_USER_CODE_H_

#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ward {

// Runs a hook, a handler or the like; an exception becomes kUserCodeThrew,
// whose text says that `what` threw it.
absl::Status CallUserCode(std::string_view what,
                          absl::FunctionRef<absl::Status()> code);

}  // namespace ward

#endif  // WARD_SERVER_USER_CODE_H_
