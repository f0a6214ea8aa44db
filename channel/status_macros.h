// Early return on errors, in the shape that Abseil later gave these macros
// (absl/status/status_macros.h), so that a swap is mechanical.
//
//   WARD_RETURN_IF_ERROR(channel.Write("hello", name));
//   WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
//
// Misuse: WARD_ASSIGN_OR_RETURN is several statements: it needs braces under an
// `if`, and a type with a comma needs parentheses or an alias.

#ifndef WARD_CHANNEL_STATUS_MACROS_H_
#define WARD_CHANNEL_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"

// Evaluates `expr`, an absl::Status, and returns it if it is not OK.
#define WARD_RETURN_IF_ERROR(expr)                              \
  do {                                                          \
    if (absl::Status ward_status = (expr); !ward_status.ok()) { \
      return ward_status;                                       \
    }                                                           \
  } while (false)

// Moves the value of `expr`, an absl::StatusOr, to `lhs`, which may declare a
// variable; returns the status if there is none.
#define WARD_ASSIGN_OR_RETURN(lhs, expr) \
  WARD_ASSIGN_OR_RETURN_(WARD_CONCAT_(ward_status_or_, __LINE__), lhs, expr)

#define WARD_ASSIGN_OR_RETURN_(holder, lhs, expr)      \
  auto holder = (expr);                                \
  if (!holder.ok()) return std::move(holder).status(); \
  lhs = *std::move(holder)

#define WARD_CONCAT_(a, b) WARD_CONCAT_INNER_(a, b)
#define WARD_CONCAT_INNER_(a, b) a##b

#endif  // WARD_CHANNEL_STATUS_MACROS_H_
