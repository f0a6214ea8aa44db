// Matchers for absl::Status and absl::StatusOr, in the shape that Abseil later
// gave them.
//
//   EXPECT_THAT(channel.Write("hello"), IsOk());
//   EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
//   ASSERT_OK_AND_ASSIGN(Message message, channel.Read());

#ifndef WARD_CHANNEL_STATUS_MATCHERS_FOR_TEST_H_
#define WARD_CHANNEL_STATUS_MATCHERS_FOR_TEST_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/status_macros.h"

namespace ward {
namespace internal {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

}  // namespace internal

MATCHER(IsOk, "is OK") {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status;
  return status.ok();
}

// Code and reason are `reason`'s.
MATCHER_P(FailsWith, reason, "fails with " + std::string(reason.name)) {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status << ", reason '" << ReasonOf(status)
                   << "'";
  return HasReason(status, reason) && status.code() == reason.code;
}

}  // namespace ward

#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_(WARD_CONCAT_(ward_result_, __LINE__), lhs, expr)

#define ASSERT_OK_AND_ASSIGN_(holder, lhs, expr) \
  auto holder = (expr);                          \
  ASSERT_TRUE(holder.ok()) << holder.status();   \
  lhs = *std::move(holder)

#endif  // WARD_CHANNEL_STATUS_MATCHERS_FOR_TEST_H_
