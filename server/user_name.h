// A user, for an error text.

#ifndef WARD_SERVER_USER_NAME_H_
#define WARD_SERVER_USER_NAME_H_

#include <sys/types.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "ward/server/environment.h"

namespace ward {

inline std::string UserName(Environment& environment, uid_t user) {
  return absl::StrCat(user, environment.KnowsUser(user)
                                ? ""
                                : " (all that are unknown in this process's "
                                  "user namespace)");
}

}  // namespace ward

#endif  // WARD_SERVER_USER_NAME_H_
