// What ward.py does in gdb, with a program that loses an update.

#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// What gdb prints after `commands`, a line each, in a run in which the account
// loses the deposit of 2. WARD_PY and LOST_UPDATE are set by the BUILD file.
std::string Debug(std::string_view commands) {
  std::string command = absl::StrCat(
      "env -u TEST_PREMATURE_EXIT_FILE -u XML_OUTPUT_FILE WARD_REPLAY=3=1 "
      "gdb -q -nx -batch -ex 'set style enabled off' -ex 'source ",
      // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets them.
      std::getenv("WARD_PY"), "'");
  for (size_t at = 0; at < commands.size();) {
    const size_t end = commands.find('\n', at);
    absl::StrAppend(&command, " -ex \"", commands.substr(at, end - at), "\"");
    at = end + 1;
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  absl::StrAppend(&command, " ", std::getenv("LOST_UPDATE"), " 2>&1");
  FILE* const output = popen(command.c_str(), "r");
  std::string text;
  std::array<char, 1000> part;
  for (size_t size; (size = fread(part.data(), 1, part.size(), output)) > 0;) {
    text.append(part.data(), size);
  }
  pclose(output);
  return text;
}

// The variable's name, for a program without debugging information.
constexpr std::string_view kBalance =
    "*(int*)&'(anonymous namespace)::balance'";

class WardGdbTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
    GTEST_SKIP() << "LeakSanitizer does not work in a debugger, and "
                    "ThreadSanitizer's signals stop it.";
#endif
    if (access("/usr/bin/gdb", X_OK) == 0) return;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it.
    ASSERT_EQ(std::getenv("CI"), nullptr) << "install gdb";
    GTEST_SKIP() << "install gdb";
  }
};

TEST_F(WardGdbTest, GoesToTheDecisionBeforeAndToTheNextAndToOneByItsNumber) {
  const std::string said = Debug(
      "run\n"
      "ward-back 2\n"
      "echo ---\\n\n"
      "ward-step\n"
      "echo ---\\n\n"
      "ward-to 3\n");
  EXPECT_THAT(said, HasSubstr("received signal SIGTRAP"))
      << "at the failed assertion";
  EXPECT_THAT(
      said,
      MatchesRegex("(.|\n)*"
                   "Decision 6: thread 1 .*, locking a mutex. goes on, "
                   "and not thread 0 .main, locking a mutex.\n"
                   "#.*SetBalance(.|\n)*"
                   "---\n(.|\n)*"
                   "Decision 7: thread 1 .*, unlocking a mutex. goes on"
                   "(.|\n)*"
                   "---\n(.|\n)*"
                   "Decision 3: thread 1 .thread 1, starting. goes on, and "
                   "not thread 0 .main, locking a mutex.\n(.|\n)*"));
}

TEST_F(WardGdbTest, GoesToTheLastChangeOfAVariableAndToTheOneBefore) {
  for (const char* const hardware : {"0", "1"}) {
    const std::string back = absl::StrCat("ward-back-write ", kBalance, "\n");
    const std::string said =
        Debug(absl::StrCat("set can-use-hw-watchpoints ", hardware, "\nrun\n",
                           back, "echo ---\\n\n", back));
    EXPECT_THAT(said, MatchesRegex("(.|\n)* was 2, and becomes 1:\n"
                                   "#0 .*SetBalance(.|\n)*"
                                   "---\n(.|\n)*"
                                   " was 0, and becomes 2:\n"
                                   "#0 .*SetBalance(.|\n)*"));
  }
}

TEST_F(WardGdbTest, SaysWhatItCannotDo) {
  const std::string said = Debug(
      "ward-back\n"
      "break main\n"
      "run\n"
      "ward-back\n"
      "continue\n"
      "ward-back 1000\n"
      "ward-back x\n"
      "ward-to\n"
      "ward-back-write nothing\n"
      "ward-back-write 1 + 1\n");
  EXPECT_THAT(said, HasSubstr("The program does not run."));
  EXPECT_THAT(said, HasSubstr("No simulated run has begun"));
  EXPECT_THAT(said, HasSubstr("So many decisions of this run were not made"));
  EXPECT_THAT(said, HasSubstr("That is no number: x"));
  EXPECT_THAT(said, HasSubstr("ward-to takes the number of a decision"));
  EXPECT_THAT(said, HasSubstr("No symbol \"nothing\""));
  EXPECT_THAT(said, HasSubstr("1 + 1 is not in memory"));
}

}  // namespace
