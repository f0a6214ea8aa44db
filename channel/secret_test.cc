#include "ward/channel/secret.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace {

using ::testing::MatchesRegex;

TEST(SecretTest, MatchesItselfAlone) {
  const Secret secret("open sesame");
  EXPECT_TRUE(secret.Matches("open sesame"));
  EXPECT_FALSE(secret.Matches("Open sesame"));
  EXPECT_FALSE(secret.Matches("open sesamE"));
  EXPECT_FALSE(secret.Matches(""));
}

TEST(SecretTest, MatchesNoPrefixNorAnythingLonger) {
  const Secret secret("aaaa");
  for (size_t size = 0; size <= 9; ++size) {
    EXPECT_EQ(secret.Matches(std::string(size, 'a')), size == 4) << size;
  }
  EXPECT_FALSE(secret.Matches(std::string_view("aaaa\0", 5)));
}

TEST(SecretTest, MatchesAnyBytes) {
  const std::string bytes("\0\xff\0x", 4);
  const Secret secret(bytes);
  EXPECT_TRUE(secret.Matches(bytes));
  EXPECT_FALSE(secret.Matches(std::string_view("\0\xff\0y", 4)));
  EXPECT_FALSE(secret.Matches(std::string_view("\0\0\0x", 4)));
}

TEST(SecretTest, AnEmptyOneMatchesNothing) {
  const Secret none;
  EXPECT_TRUE(none.empty());
  EXPECT_FALSE(none.Matches(""));
  EXPECT_FALSE(none.Matches(std::string_view("\0", 1)));
  EXPECT_FALSE(Secret("").Matches(""));
}

TEST(SecretTest, IsEmptyAfterItWasMovedFrom) {
  Secret first("first");
  const Secret second(std::move(first));
  EXPECT_TRUE(first.empty());
  EXPECT_FALSE(first.Matches(""));
  EXPECT_TRUE(second.Matches("first"));
}

TEST(SecretTest, AssignmentLeavesTheOldOneNowhere) {
  Secret first("first");
  Secret second("second");
  first = std::move(second);
  EXPECT_TRUE(first.Matches("second"));
  EXPECT_TRUE(second.empty());
  Secret& alias = first;
  first = std::move(alias);
  EXPECT_TRUE(first.Matches("second"));
}

TEST(SecretTest, IsCopiedOnPurposeOnly) {
  static_assert(!std::is_copy_constructible_v<Secret>);
  static_assert(!std::is_copy_assignable_v<Secret>);
  static_assert(!std::is_convertible_v<Secret, std::string>);
  static_assert(!std::is_convertible_v<std::string, Secret>);
  const Secret secret("open sesame");
  const Secret copy = secret.Copy();
  EXPECT_TRUE(copy.Matches("open sesame"));
  EXPECT_NE(copy.Expose().data(), secret.Expose().data());
}

TEST(SecretTest, GeneratesSixtyFourDigitsThatDiffer) {
  const Secret one = Secret::Generate().value();
  const Secret other = Secret::Generate().value();
  EXPECT_THAT(std::string(one.Expose()), MatchesRegex("[0-9a-f]{64}"));
  EXPECT_FALSE(one.Matches(other.Expose()));
  EXPECT_TRUE(one.Matches(one.Expose()));
}

TEST(SecretTest, WipeOverwritesWhatItIsGivenAndNoMore) {
  char bytes[] = "secret!";
  Wipe(bytes, 6);
  EXPECT_EQ(std::string_view(bytes, 7), std::string_view("\0\0\0\0\0\0!", 7));
  Wipe(nullptr, 0);
}

TEST(SecretTest, IsSharedInADescriptorThatIsReadOnce) {
  for (const std::string& bytes :
       {std::string("open\0sesame", 11), std::string(4096, 'x')}) {
    const Secret secret(bytes);
    const auto shared = secret.Share();
    ASSERT_TRUE(shared.ok()) << shared.status();
    EXPECT_EQ(send(shared->get(), "x", 1, MSG_NOSIGNAL), -1);
    const auto adopted = Secret::Adopt(*shared);
    ASSERT_TRUE(adopted.ok()) << adopted.status();
    EXPECT_TRUE(adopted->Matches(secret.Expose()));
    EXPECT_TRUE(
        HasReason(Secret::Adopt(*shared).status(), reason::kInvalidArguments));
  }
}

TEST(SecretTest, IsSharedOnlyIfItCanBeAdopted) {
  EXPECT_TRUE(HasReason(Secret().Share().status(), reason::kInvalidArguments));
  EXPECT_TRUE(HasReason(Secret(std::string(4097, 'x')).Share().status(),
                        reason::kInvalidArguments));
}

TEST(SecretTest, IsAdoptedFromNothingElse) {
  const auto refused = [](const FileDescriptor& from) {
    return HasReason(Secret::Adopt(from).status(), reason::kInvalidArguments);
  };
  EXPECT_TRUE(refused(FileDescriptor()));
  EXPECT_TRUE(refused(FileDescriptor(open("/dev/zero", O_RDONLY | O_CLOEXEC))));
  for (const int type : {SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM}) {
    std::array<int, 2> ends;
    ASSERT_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), 0);
    const FileDescriptor writes(ends[0]);
    const FileDescriptor reads(ends[1]);
    EXPECT_TRUE(refused(reads)) << "nothing is there yet, and none waits";
    const std::string huge(4097, 'x');
    ASSERT_EQ(send(writes.get(), huge.data(), huge.size(), 0), 4097);
    EXPECT_TRUE(refused(reads));
  }
}

}  // namespace
}  // namespace ward
