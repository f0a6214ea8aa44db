#include "ward/channel/error.h"

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ward {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr Reason kNoSuchDevice{"NoSuchDevice", absl::StatusCode::kNotFound};

TEST(ErrorTest, CarriesCodeReasonAndText) {
  const absl::Status error = MakeError(kNoSuchDevice, "no eth7");
  EXPECT_EQ(error.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(error.message(), "no eth7");
  EXPECT_EQ(ReasonOf(error), "NoSuchDevice");
  EXPECT_TRUE(HasReason(error, kNoSuchDevice));
  EXPECT_FALSE(HasReason(error, reason::kTimedOut));
}

TEST(ErrorTest, AReasonIsNoPrefixOfAnother) {
  const absl::Status error =
      MakeError(absl::StatusCode::kNotFound, "NoSuchDeviceHere", "");
  EXPECT_FALSE(HasReason(error, kNoSuchDevice));
}

TEST(ErrorTest, AStatusFromElsewhereHasNoReason) {
  EXPECT_EQ(ReasonOf(absl::NotFoundError("x")), "");
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
  EXPECT_FALSE(HasReason(absl::NotFoundError("x"), kNoSuchDevice));
}

TEST(ErrorTest, AnEmptyReasonIsNone) {
  EXPECT_EQ(MakeError(absl::StatusCode::kInternal, "", "text"),
            absl::InternalError("text"));
}

TEST(ErrorTest, OkStaysOk) {
  EXPECT_TRUE(MakeError(absl::StatusCode::kOk, "Reason", "text").ok());
  EXPECT_TRUE(Annotate(absl::OkStatus(), "context").ok());
}

TEST(ErrorTest, AnnotatePutsTheContextBeforeAndKeepsTheRest) {
  absl::Status error = MakeError(kNoSuchDevice, "no eth7");
  error.SetPayload("other", absl::Cord("payload"));
  const absl::Status annotated = Annotate(error, "set up the network");
  EXPECT_EQ(annotated.message(), "set up the network: no eth7");
  EXPECT_TRUE(HasReason(annotated, kNoSuchDevice));
  EXPECT_EQ(annotated.code(), error.code());
  EXPECT_EQ(annotated.GetPayload("other"), absl::Cord("payload"));
}

TEST(ErrorTest, ASystemErrorSaysWhatWasTriedAndWhatHappened) {
  const absl::Status error = SystemError(ENOENT, "open /nowhere");
  EXPECT_EQ(error.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(error.message()), StartsWith("open /nowhere"));
  EXPECT_THAT(std::string(error.message()), HasSubstr("No such file"));
  EXPECT_EQ(ReasonOf(error), "");
}

TEST(ErrorTest, AFullDescriptorTableSaysWhatToDo) {
  for (const int number : {EMFILE, ENFILE}) {
    const absl::Status error = SystemError(number, "accept a client");
    EXPECT_TRUE(HasReason(error, reason::kDescriptorTableFull));
    EXPECT_EQ(error.code(), reason::kDescriptorTableFull.code);
    EXPECT_THAT(std::string(error.message()), HasSubstr("ulimit -n"));
  }
}

}  // namespace
}  // namespace ward
