#include "ward/channel/secret.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

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
  const Secret one = Secret::Generate();
  const Secret other = Secret::Generate();
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

TEST(SecretTest, IsSharedInADescriptorThatNobodyCanChange) {
  const Secret secret(std::string_view("open\0sesame", 11));
  const auto shared = secret.Share();
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(write(shared->get(), "x", 1), -1);
  EXPECT_EQ(ftruncate(shared->get(), 0), -1);
  const auto adopted = Secret::Adopt(*shared);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_TRUE(adopted->Matches(secret.Expose()));
}

TEST(SecretTest, IsAdoptedFromNothingElse) {
  const auto refused = [](const FileDescriptor& from) {
    return HasReason(Secret::Adopt(from).status(), reason::kInvalidArguments);
  };
  EXPECT_TRUE(refused(FileDescriptor()));
  EXPECT_TRUE(refused(FileDescriptor(open("/dev/zero", O_RDONLY | O_CLOEXEC))));
  const FileDescriptor open_to_change(
      memfd_create("secret", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(write(open_to_change.get(), "x", 1), 1);
  EXPECT_TRUE(refused(open_to_change));
  const auto empty = Secret().Share();
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(refused(*empty));
  const auto huge = Secret(std::string(4097, 'x')).Share();
  ASSERT_TRUE(huge.ok());
  EXPECT_TRUE(refused(*huge));
}

}  // namespace
}  // namespace ward
