// Messages, and the conversions of argument.h.

#include "ward/channel/message.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/argument.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/open_descriptors_for_test.h"
#include "ward/channel/open_null_for_test.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <typename T>
std::string Written(const T& value) {
  return std::string(Argument(value).view());
}

// Whether `text` reads as a T.
template <typename T>
bool Reads(std::string_view text) {
  return Message({std::string(text)}).Unpack<T>().ok();
}

// Whether `value` comes back as it was written.
template <typename T>
bool RoundTrips(T value) {
  Message message({Written(value)});
  const absl::StatusOr<std::tuple<T>> read = message.Unpack<T>();
  return read.ok() && std::get<0>(*read) == value;
}

// --- arguments ---

template <typename T>
class IntegerTest : public ::testing::Test {};

using Integers =
    ::testing::Types<int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t,
                     int64_t, uint64_t, long long, unsigned long long>;
TYPED_TEST_SUITE(IntegerTest, Integers);

TYPED_TEST(IntegerTest, ComesBackFromEndToEndOfItsRange) {
  using Limits = std::numeric_limits<TypeParam>;
  EXPECT_TRUE(RoundTrips<TypeParam>(Limits::min()));
  EXPECT_TRUE(RoundTrips<TypeParam>(Limits::max()));
  EXPECT_TRUE(RoundTrips<TypeParam>(0));
  EXPECT_TRUE(RoundTrips<TypeParam>(1));
  EXPECT_EQ(Written(TypeParam{65}), "65");  // Not "A".
}

TYPED_TEST(IntegerTest, IsRefusedOutOfItsRange) {
  using Limits = std::numeric_limits<TypeParam>;
  const std::string max = Written(Limits::max());
  EXPECT_TRUE(Reads<TypeParam>(max));
  EXPECT_FALSE(Reads<TypeParam>(max + "0"));
  // No integer's greatest value ends in 9.
  std::string one_more = max;
  ++one_more.back();
  EXPECT_FALSE(Reads<TypeParam>(one_more));
  if (std::is_signed_v<TypeParam>) {
    std::string one_less = Written(Limits::min());
    EXPECT_TRUE(Reads<TypeParam>(one_less));
    ++one_less.back();
    EXPECT_FALSE(Reads<TypeParam>(one_less));
  } else {
    EXPECT_FALSE(Reads<TypeParam>("-1"));
  }
}

TYPED_TEST(IntegerTest, IsRefusedUnlessItIsAllDigits) {
  for (const std::string_view text :
       {"", " ", "-", "+1", " 1", "1 ", "1x", "x1", "0x1", "1.0", "1e1", "1,0",
        "--1", "one", "true", "1\n"}) {
    EXPECT_FALSE(Reads<TypeParam>(text)) << "'" << text << "'";
  }
  EXPECT_FALSE(Reads<TypeParam>(std::string_view("1\0", 2)));
}

TEST(ArgumentTest, FloatingPointNumbersComeBackTheSame) {
  for (const double value :
       {0.0, -0.0, 0.1, 1.0 / 3, 1e100, -1e-100, 5e-324,
        std::numeric_limits<double>::max(), std::numeric_limits<double>::min(),
        std::numeric_limits<double>::lowest(),
        std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    EXPECT_TRUE(RoundTrips(value)) << value;
    EXPECT_TRUE(RoundTrips(static_cast<float>(value))) << value;
  }
  EXPECT_EQ(Written(0.1), "0.1");
  EXPECT_EQ(Written(0.1f), "0.1");
  Message message({Written(std::nan(""))});
  ASSERT_OK_AND_ASSIGN(const auto values, message.Unpack<double>());
  EXPECT_TRUE(std::isnan(std::get<0>(values)));
}

TEST(ArgumentTest, FloatingPointNumbersAreReadStrictly) {
  for (const std::string_view text :
       {"", " ", "+1", " 1", "1 ", "1x", "0x1p3", "1,5", "1e", "e1", ".", "-",
        "1e400", "-1e400", "1e-400", "nan()", "nan(1)", "true", "1.5f"}) {
    EXPECT_FALSE(Reads<double>(text)) << "'" << text << "'";
  }
  for (const std::string_view text :
       {"1.", ".5", "-.5", "007", "1E+20", "INF", "Infinity", "NaN"}) {
    EXPECT_TRUE(Reads<double>(text)) << "'" << text << "'";
  }
  EXPECT_TRUE(Reads<int>("-007"));
  EXPECT_FALSE(Reads<float>("1e39"));
  EXPECT_TRUE(Reads<double>("1e39"));
  EXPECT_TRUE(Reads<double>("-1"));
  EXPECT_TRUE(Reads<double>("1E5"));
}

TEST(ArgumentTest, ABoolIsTrueOrFalseAndNothingElse) {
  EXPECT_EQ(Written(true), "true");
  EXPECT_EQ(Written(false), "false");
  EXPECT_TRUE(RoundTrips(true));
  EXPECT_TRUE(RoundTrips(false));
  for (const std::string_view text :
       {"", "0", "1", "True", "TRUE", "t", "yes", "true ", " true", "falsee"}) {
    EXPECT_FALSE(Reads<bool>(text)) << "'" << text << "'";
  }
  EXPECT_FALSE(Reads<int>("true"));
}

TEST(ArgumentTest, StringsAreTakenAsTheyAre) {
  const std::string bytes("a\0b\xff", 4);
  EXPECT_EQ(Written(bytes), bytes);
  EXPECT_EQ(Written(std::string_view(bytes)), bytes);
  EXPECT_EQ(Written("text"), "text");
  const char* const pointer = "text";
  EXPECT_EQ(Written(pointer), "text");
  EXPECT_TRUE(RoundTrips(bytes));
  EXPECT_TRUE(RoundTrips(std::string()));
}

TEST(ArgumentTest, WhatCouldBeTakenAmissIsRefusedByTheCompiler) {
  // A char, text or number? The author must say.
  static_assert(!std::is_constructible_v<Argument, char>);
  static_assert(!std::is_constructible_v<Argument, long double>);
  static_assert(!std::is_constructible_v<Argument, void*>);
  static_assert(std::is_constructible_v<Argument, unsigned char>);
}

TEST(ArgumentTest, AProtobufMessageComesBackTheSame) {
  proto::Error error;
  error.set_code(7);
  error.set_text(std::string("a\0b", 3));
  Message message({Written(error), Written(proto::Error())});
  auto read = message.Unpack<proto::Error, proto::Error>();
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(std::get<0>(*read).code(), 7);
  EXPECT_EQ(std::get<0>(*read).text(), error.text());
  EXPECT_EQ(std::get<1>(*read).code(), 0);
}

TEST(ArgumentTest, WhatIsNoProtobufMessageIsRefused) {
  proto::Error error;
  error.set_text("text");
  const std::string whole = Written(error);
  EXPECT_TRUE(Reads<proto::Error>(whole));
  EXPECT_FALSE(Reads<proto::Error>(whole.substr(0, whole.size() - 1)));
  EXPECT_FALSE(Reads<proto::Error>("\xff\xff"));
}

TEST(ArgumentTest, ADescriptorIsNoPart) {
  const FileDescriptor null = OpenNull();
  const Argument argument(null);
  EXPECT_EQ(argument.descriptor(), &null);
  EXPECT_EQ(Argument("text").descriptor(), nullptr);
}

// --- messages ---

TEST(MessageTest, HasANameAndArguments) {
  const Message message({"hello", "Joe", "Dalton"});
  EXPECT_EQ(message.name(), "hello");
  EXPECT_THAT(message.arguments(), ElementsAre("Joe", "Dalton"));
  EXPECT_THAT(message.parts(), ElementsAre("hello", "Joe", "Dalton"));
  EXPECT_EQ(message.size(), 3u);
  EXPECT_EQ(message[2], "Dalton");
}

TEST(MessageTest, AnEmptyOneHasNeither) {
  const Message message;
  EXPECT_EQ(message.name(), "");
  EXPECT_THAT(message.arguments(), IsEmpty());
  EXPECT_EQ(message.size(), 0u);
  EXPECT_THAT(message.descriptors(), IsEmpty());
}

TEST(MessageTest, UnpacksEachPartAsItsType) {
  Message message({"text", "12", "-0.5", "true", "7"});
  ASSERT_OK_AND_ASSIGN(
      const auto values,
      (message.Unpack<std::string, uint8_t, double, bool, std::string_view>()));
  EXPECT_EQ(values, std::make_tuple("text", 12, -0.5, true, "7"));
}

TEST(MessageTest, UnpacksArgumentsWithoutTheName) {
  Message message({"hello", "12"});
  ASSERT_OK_AND_ASSIGN(const auto values, message.UnpackArguments<int>());
  EXPECT_EQ(std::get<0>(values), 12);
  EXPECT_THAT(Message({"hello"}).UnpackArguments<>(), IsOk());
  EXPECT_THAT(Message().Unpack<>(), IsOk());
}

TEST(MessageTest, RefusesAnyOtherNumberOfArguments) {
  Message message({"hello", "1", "2"});
  EXPECT_THAT(message.UnpackArguments<>(),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(message.UnpackArguments<int>(),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT((message.UnpackArguments<int, int>()), IsOk());
  const auto three = message.UnpackArguments<int, int, int>();
  EXPECT_THAT(three, FailsWith(reason::kInvalidArguments));
  EXPECT_EQ(three.status().message(),
            "expected 3 arguments and 0 descriptors, got 2 arguments and 0 "
            "descriptors");
}

TEST(MessageTest, AMessageWithoutANameHasNoArgumentsNotEvenNone) {
  EXPECT_THAT(Message().UnpackArguments<>(),
              FailsWith(reason::kInvalidArguments));
}

TEST(MessageTest, SaysWhichArgumentDoesNotFitAndKeepsItsValueToItself) {
  Message message({"login", "joe", "hunter2", "x"});
  const auto values = message.UnpackArguments<std::string, int, bool>();
  EXPECT_THAT(values, FailsWith(reason::kInvalidArguments));
  EXPECT_EQ(values.status().message(),
            "argument 2 must be a whole number, in range");
  EXPECT_THAT(
      std::string(
          Message({"m", "-1"}).UnpackArguments<unsigned>().status().message()),
      HasSubstr("argument 1 must be a whole number from 0 on"));
}

TEST(MessageTest, TakesDescriptorsBetweenOtherArguments) {
  const std::map<int, std::string> before = OpenDescriptors();
  {
    std::vector<FileDescriptor> descriptors;
    descriptors.push_back(OpenNull());
    descriptors.push_back(OpenNull());
    const int first = descriptors[0].get();
    const int second = descriptors[1].get();
    Message message({"copy", "1", "2"}, std::move(descriptors));
    ASSERT_OK_AND_ASSIGN(
        const auto values,
        (message.UnpackArguments<FileDescriptor, int, FileDescriptor, int>()));
    EXPECT_EQ(std::get<0>(values).get(), first);
    EXPECT_EQ(std::get<1>(values), 1);
    EXPECT_EQ(std::get<2>(values).get(), second);
    EXPECT_EQ(std::get<3>(values), 2);
    // They are gone from the message, and not taken twice.
    EXPECT_THAT(message.descriptors(), IsEmpty());
    EXPECT_THAT(
        (message.UnpackArguments<FileDescriptor, int, FileDescriptor, int>()),
        FailsWith(reason::kInvalidArguments));
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(MessageTest, RefusesAnyOtherNumberOfDescriptors) {
  std::vector<FileDescriptor> descriptors;
  descriptors.push_back(OpenNull());
  Message message({"copy"}, std::move(descriptors));
  EXPECT_THAT(message.UnpackArguments<>(),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT((message.UnpackArguments<FileDescriptor, FileDescriptor>()),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(message.UnpackArguments<FileDescriptor>(), IsOk());
}

TEST(MessageTest, IsAsItWasAfterAFailedUnpack) {
  std::vector<FileDescriptor> descriptors;
  descriptors.push_back(OpenNull());
  const int fd = descriptors[0].get();
  Message message({"copy", "text"}, std::move(descriptors));
  EXPECT_THAT((message.UnpackArguments<FileDescriptor, int>()),
              FailsWith(reason::kInvalidArguments));
  ASSERT_THAT(message.descriptors(), SizeIs(1));
  ASSERT_OK_AND_ASSIGN(
      const auto values,
      (message.UnpackArguments<FileDescriptor, std::string>()));
  EXPECT_EQ(std::get<0>(values).get(), fd);
}

TEST(MessageTest, GivesItsStringsAwayWhenItIsAboutToGo) {
  Message message({"log", std::string(100, 'x')});
  const char* const bytes = message[1].data();
  ASSERT_OK_AND_ASSIGN(const auto copied,
                       message.UnpackArguments<std::string>());
  EXPECT_NE(std::get<0>(copied).data(), bytes);
  ASSERT_OK_AND_ASSIGN(const auto taken,
                       std::move(message).UnpackArguments<std::string>());
  EXPECT_EQ(std::get<0>(taken).data(), bytes);
  EXPECT_EQ(taken, copied);
}

TEST(MessageTest, IsEmptyWhenItWasMovedFrom) {
  Message message({"one", "two"});
  const Message other = std::move(message);
  // NOLINTNEXTLINE(bugprone-use-after-move)
  EXPECT_THAT(message.parts(), IsEmpty());
  EXPECT_THAT(other.parts(), ElementsAre("one", "two"));
}

TEST(MessageTest, ClosesItsDescriptors) {
  const std::map<int, std::string> before = OpenDescriptors();
  {
    std::vector<FileDescriptor> descriptors;
    descriptors.push_back(OpenNull());
    const Message message({}, std::move(descriptors));
    EXPECT_NE(OpenDescriptors(), before);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace ward
