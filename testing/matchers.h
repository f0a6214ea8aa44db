// GoogleTest matchers for statuses, results and messages.
//
//   EXPECT_THAT(server.Start(), IsOk());
//   EXPECT_THAT(Call("hello", "Joe"), RepliesWith("Hello Joe"));
//   EXPECT_THAT(Call("no such"), FailsWith(reason::kUnknownMessage));
//   ASSERT_OK_AND_ASSIGN(ward::Message reply, channel.Read());
//   EXPECT_THAT(reply, HasDescriptors(1));

#ifndef WARD_TESTING_MATCHERS_H_
#define WARD_TESTING_MATCHERS_H_

#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"

namespace ward::testing::internal {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// A Message, or a StatusOr of one that is OK; null otherwise.
inline const Message* MessageOf(const Message& message) { return &message; }
inline const Message* MessageOf(const absl::StatusOr<Message>& message) {
  return message.ok() ? &*message : nullptr;
}

inline std::vector<std::string> PartsOf(const Message& message) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < message.size(); ++i) parts.emplace_back(message[i]);
  return parts;
}

}  // namespace ward::testing::internal

namespace ward {

// Where GoogleTest looks for them.
inline void PrintTo(const Message& message, std::ostream* out) {
  *out << ::testing::PrintToString(testing::internal::PartsOf(message));
  if (!message.descriptors().empty()) {
    *out << " with " << message.descriptors().size() << " descriptors";
  }
}

inline void PrintTo(const absl::StatusOr<Message>& result, std::ostream* out) {
  if (result.ok()) {
    PrintTo(*result, out);
  } else {
    *out << result.status();
  }
}

}  // namespace ward

namespace ward::testing {

// For a Status or a StatusOr.
MATCHER(IsOk, "is OK") {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status;
  return status.ok();
}

// For a StatusOr; `value` may be a matcher.
MATCHER_P(IsOkAndHolds, value,
          absl::StrCat("is OK and holds ", ::testing::PrintToString(value))) {
  if (!arg.ok()) {
    *result_listener << "which is " << arg.status();
    return false;
  }
  if (!result_listener->IsInterested()) {
    return ::testing::ExplainMatchResult(value, *arg, result_listener);
  }
  // GoogleTest cannot print a StatusOr of the oldest Abseil.
  *result_listener << "which holds " << ::testing::PrintToString(*arg);
  ::testing::StringMatchResultListener why;
  const bool matches = ::testing::ExplainMatchResult(value, *arg, &why);
  if (!why.str().empty()) *result_listener << ", " << why.str();
  return matches;
}

// Code and reason are `reason`'s, one of ward::reason or your own.
MATCHER_P(FailsWith, reason, absl::StrCat("fails with ", reason.name)) {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status << ", reason '" << ReasonOf(status)
                   << "'";
  return HasReason(status, reason) && status.code() == reason.code;
}

// And `text` is part of its text.
MATCHER_P2(FailsWith, reason, text,
           absl::StrCat("fails with ", reason.name, " and a text with \"", text,
                        "\"")) {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which is " << status << ", reason '" << ReasonOf(status)
                   << "'";
  return HasReason(status, reason) && status.code() == reason.code &&
         absl::StrContains(status.message(), text);
}

// For a Message, or a StatusOr of one: it has these parts, and no more.
// Failures show all parts, and how many descriptors there are.
MATCHER_P(HasParts, parts,
          absl::StrCat("has the parts ", ::testing::PrintToString(parts))) {
  const Message* const message = internal::MessageOf(arg);
  return message != nullptr && internal::PartsOf(*message) == parts;
}

// The same, with one argument for each part.
template <typename... Parts>
auto RepliesWith(const Parts&... parts) {
  return HasParts(std::vector<std::string>{std::string(parts)...});
}

// For a Message, or a StatusOr of one.
MATCHER_P(HasDescriptors, count, absl::StrCat("has ", count, " descriptors")) {
  const Message* const message = internal::MessageOf(arg);
  return message != nullptr &&
         message->descriptors().size() == static_cast<size_t>(count);
}

}  // namespace ward::testing

// Fails the test, and returns, if `expr` is not OK.
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_(WARD_CONCAT_(ward_result_, __LINE__), lhs, expr)

#define ASSERT_OK_AND_ASSIGN_(holder, lhs, expr) \
  auto holder = (expr);                          \
  ASSERT_TRUE(holder.ok()) << holder.status();   \
  lhs = *std::move(holder)

#endif  // WARD_TESTING_MATCHERS_H_
