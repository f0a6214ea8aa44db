#include "ward/server/user_code.h"

#include <exception>
#include <string_view>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"

namespace ward {

absl::Status CallUserCode(std::string_view what,
                          absl::FunctionRef<absl::Status()> code) {
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
    return code();
  } catch (const std::exception& exception) {
    return MakeError(reason::kUserCodeThrew,
                     absl::StrCat(what, " threw: ", exception.what()));
  } catch (...) {
    return MakeError(
        reason::kUserCodeThrew,
        absl::StrCat(what, " threw something that is no std::exception"));
  }
#else
  return code();
#endif
}

}  // namespace ward
