#include "ward/examples/key_value/key_value_server.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/examples/key_value/key_value.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

using ::ward::testing::IsOk;
using ::ward::testing::IsOkAndHolds;

class KeyValueTest : public ward::testing::ServerTest<KeyValueServer> {
 protected:
  std::unique_ptr<KeyValueServer> MakeServer() override {
    ward::ServerOptions options;
    options.max_clients = 2;  // One that watches, and one beside it.
    return std::make_unique<KeyValueServer>(std::move(options));
  }
};

TEST_F(KeyValueTest, GetsWhatWasPut) {
  EXPECT_EQ(Call(kGet, "colour").status().code(), absl::StatusCode::kNotFound);
  ASSERT_THAT(Call(kPut, "colour", "blue"), IsOk());
  ASSERT_THAT(Call(kPut, "size", "large"), IsOk());
  ASSERT_THAT(Call(kPut, "colour", "green"), IsOk());
  EXPECT_THAT(Call(kGet, "colour"), IsOkAndHolds("green"));
  EXPECT_THAT(Call(kGet, "size"), IsOkAndHolds("large"));
}

TEST_F(KeyValueTest, AWatcherSeesWhatIsThereAndWhatComes) {
  ASSERT_THAT(Call(kPut, "colour", "blue"), IsOk());
  ASSERT_OK_AND_ASSIGN(auto colours, Call(kWatch, "colour"));
  EXPECT_EQ(colours.Next(), "blue");
  ASSERT_THAT(Call(kPut, "size", "large"), IsOk());
  ASSERT_THAT(Call(kPut, "colour", "green"), IsOk());
  EXPECT_EQ(colours.Next(), "green");
}

TEST_F(KeyValueTest, AWatchedKeyThatWasNeverPutHasNoValue) {
  ASSERT_OK_AND_ASSIGN(auto colours, Call(kWatch, "colour"));
  EXPECT_EQ(Call(kGet, "colour").status().code(), absl::StatusCode::kNotFound);
  ASSERT_THAT(Call(kPut, "colour", ""), IsOk());
  EXPECT_EQ(colours.Next(), "");
}

TEST_F(KeyValueTest, ASlowWatcherSeesTheLastValueAndNoneTwice) {
  ASSERT_OK_AND_ASSIGN(auto numbers, Call(kWatch, "number"));
  constexpr int kLast = 300;
  for (int i = 1; i <= kLast; ++i) {
    ASSERT_THAT(Call(kPut, "number", std::to_string(i)), IsOk());
  }
  int seen = 0;
  while (seen < kLast) {
    const std::optional<std::string> number = numbers.Next();
    ASSERT_TRUE(number.has_value()) << numbers.status();
    ASSERT_GT(std::stoi(*number), seen);
    seen = std::stoi(*number);
  }
}

TEST_F(KeyValueTest, AWatcherThatLeavesFreesItsPlace) {
  ASSERT_THAT(Call(kPut, "colour", "blue"), IsOk());
  {
    ASSERT_OK_AND_ASSIGN(auto one, Call(kWatch, "colour"));
    ASSERT_OK_AND_ASSIGN(auto other, Call(kWatch, "colour"));
    EXPECT_EQ(one.Next(), "blue");
    EXPECT_EQ(other.Next(), "blue");
  }
  EXPECT_THAT(Call(kGet, "colour"), IsOkAndHolds("blue"));
}

TEST_F(KeyValueTest, AStopEndsAWatch) {
  ASSERT_THAT(Call(kPut, "colour", "blue"), IsOk());
  ASSERT_OK_AND_ASSIGN(auto colours, Call(kWatch, "colour"));
  EXPECT_EQ(colours.Next(), "blue");
  EXPECT_THAT(server().Stop(), IsOk());
  EXPECT_EQ(colours.Next(), std::nullopt);
  EXPECT_EQ(colours.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(KeyValueTest, HandsOutAValueAsAFileThatNobodyCanChange) {
  EXPECT_EQ(Call(kFile, "colour").status().code(), absl::StatusCode::kNotFound);
  ASSERT_THAT(Call(kPut, "colour", "blue"), IsOk());
  ASSERT_OK_AND_ASSIGN(const ward::FileDescriptor file, Call(kFile, "colour"));
  ASSERT_THAT(Call(kPut, "colour", "green"), IsOk());
  std::array<char, 10> text;
  ASSERT_EQ(pread(file.get(), text.data(), text.size(), 0), 4);
  EXPECT_EQ(std::string(text.data(), 4), "blue");
  EXPECT_EQ(write(file.get(), "x", 1), -1);
  EXPECT_EQ(ftruncate(file.get(), 0), -1);
}

}  // namespace
