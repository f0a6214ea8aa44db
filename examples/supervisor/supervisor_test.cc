// The program, as its README tells it.

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string ReadLine(FILE* output) {
  std::array<char, 4096> line{};
  EXPECT_NE(fgets(line.data(), line.size(), output), nullptr);
  return std::string(absl::StripSuffix(line.data(), "\n"));
}

// Of "serves, as process PID".
pid_t ReadPid(FILE* output) {
  const std::string line = ReadLine(output);
  std::string_view pid = line;
  pid_t number = 0;
  EXPECT_TRUE(absl::ConsumePrefix(&pid, "serves, as process ") &&
              absl::SimpleAtoi(pid, &number))
      << line;
  return number;
}

TEST(Supervisor, KeepsAServerRunningUntilStandardInputEnds) {
  std::array<int, 2> in;
  std::array<int, 2> out;
  ASSERT_EQ(pipe2(in.data(), O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
  const pid_t program = fork();
  if (program == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is no other thread.
    execl(getenv("SUPERVISOR"), "supervisor", nullptr);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  FILE* const output = fdopen(out[0], "r");
  const pid_t first = ReadPid(output);
  ASSERT_EQ(kill(first, SIGKILL), 0);
  EXPECT_THAT(ReadLine(output), AllOf(HasSubstr("killed by signal 9"),
                                      EndsWith("again in 100ms")));
  EXPECT_NE(ReadPid(output), first);
  close(in[1]);
  int status = -1;
  EXPECT_EQ(waitpid(program, &status, 0), program);
  EXPECT_EQ(status, 0);
  (void)fclose(output);
}

}  // namespace
