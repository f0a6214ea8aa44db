// Libraries of each kind are instrumented, or else linked as they are. This
// file is compiled with -fsanitize=thread.

#include <functional>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/accesses/built/assembled.h"
#include "ward/testing/accesses/built/behind.h"
#include "ward/testing/accesses/built/c.h"
#include "ward/testing/accesses/built/generated.h"
#include "ward/testing/accesses/built/linked.h"
#include "ward/testing/accesses/built/options.h"
#include "ward/testing/explore.h"

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// `count` is of a file of that name.
void ExpectRaceIn(const std::string& file,
                  const std::function<void(int& counter)>& count) {
  ExploreOptions options;
  options.runs = 100;
  const Exploration exploration = FindFailure(options, [&count] {
    int counter = 0;
    std::thread other([&] { count(counter); });
    count(counter);
    other.join();
  });
  ASSERT_TRUE(exploration.failure.has_value()) << file;
  EXPECT_THAT(exploration.failure->what,
              AllOf(StartsWith("a data race: "), HasSubstr(file)));
}

TEST(Built, WithMakeVariablesThroughAnAlias) {
  ExpectRaceIn("options.cc:", CountByOptions);
  EXPECT_THAT(CompilationMode(), ::testing::AnyOf("fastbuild", "opt", "dbg"));
  EXPECT_NE(std::string(TargetCpu()), "");
}

TEST(Built, OfC) {
  ExpectRaceIn("c.c:", [](int& counter) { ward_count_in_c(&counter); });
}

TEST(Built, WithAssembler) {
  ExpectRaceIn("assembled.cc:", CountBesideAssembled);
  EXPECT_EQ(AssembledTwice(21), 42);
}

TEST(Built, OfGeneratedSources) {
  ExpectRaceIn("generated.cc:", CountGenerated);
}

TEST(Built, WithOptionsOfTheLinkerInAFile) {
  ExpectRaceIn("linked.cc:", ward_count_linked);
  ExpectRaceIn("linked.cc:", ward_count_by_another_name);
}

TEST(Built, BehindAnotherRule) { ExpectRaceIn("behind.cc:", CountBehind); }

TEST(Built, BesideProtos) {
  proto::Frame frame;
  EXPECT_EQ(frame.ByteSizeLong(), 0U);
}

}  // namespace
}  // namespace ward::testing
