#include "ward/benchmarks/workloads.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/benchmarks/floor/connection.h"
#include "ward/benchmarks/floor/server.h"
#include "ward/benchmarks/subject.h"

namespace ward::benchmarks {
namespace {

using ::testing::Combine;
using ::testing::TestWithParam;
using ::testing::Values;
using ::testing::ValuesIn;

struct Made {
  std::string_view name;
  std::unique_ptr<Subject> (*make)(Subject::Options options);
};

class WorkloadsTest : public TestWithParam<std::tuple<Made, Workload>> {};

// A wrong answer is an error; so it does what is measured.
TEST_P(WorkloadsTest, EveryAnswerIsRight) {
  const auto& [made, workload] = GetParam();
  constexpr size_t kNumber = 5;
  const absl::StatusOr<Measurement> measured =
      workload.measure(made.make, kNumber, absl::Milliseconds(5));
  ASSERT_EQ(measured.status(), absl::OkStatus());
  EXPECT_GE(measured->calls, 1);
}

INSTANTIATE_TEST_SUITE_P(
    All, WorkloadsTest,
    Combine(Values(Made{"Ward", &MakeWard}, Made{"Floor", &MakeFloor}),
            ValuesIn(Workloads().begin(), Workloads().end())),
    [](const auto& tested) {
      return std::string(std::get<0>(tested.param).name) + "_" +
             std::string(std::get<1>(tested.param).name);
    });

// More than a socket has room for.
class LargeScalarTest : public TestWithParam<Made> {};

TEST_P(LargeScalarTest, ComesWhole) {
  constexpr size_t kBytes = size_t{20} << 20;
  Subject::Options options;
  options.scalar_bytes = kBytes;
  const auto subject = GetParam().make(options);
  ASSERT_EQ(subject->Start(), absl::OkStatus());
  const auto conversation = subject->Converse();
  ASSERT_EQ(conversation.status(), absl::OkStatus());
  // Into memory of another size, and then of the same.
  std::string scalar(10, ' ');
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ((*conversation)->Scalar(scalar), absl::OkStatus());
    EXPECT_TRUE(scalar == std::string(kBytes, kScalarByte));
  }
  // The next answer is in step.
  Greeting greeting;
  EXPECT_EQ((*conversation)->Hello(greeting), absl::OkStatus());
  EXPECT_EQ(greeting.text, kGreeting);
  EXPECT_EQ(greeting.number, kNumber);
}

INSTANTIATE_TEST_SUITE_P(All, LargeScalarTest,
                         Values(Made{"Ward", &MakeWard},
                                Made{"Floor", &MakeFloor}),
                         [](const auto& tested) {
                           return std::string(tested.param.name);
                         });

// Who has not the password is not served.
TEST(FloorTest, AsksForThePassword) {
  floor::Server server;
  ASSERT_TRUE(server.Start());
  floor::Address address = server.address();
  std::string text;
  int32_t number = 0;
  EXPECT_TRUE(floor::Connection(address).Hello("Joe", "Dalton", text, number));
  address.password.back() ^= 1;
  EXPECT_FALSE(floor::Connection(address).Hello("Joe", "Dalton", text, number));
  EXPECT_TRUE(server.Stop());
}

}  // namespace
}  // namespace ward::benchmarks
