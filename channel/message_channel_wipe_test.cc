// A channel leaves no password behind: whatever memory it gives back, before or
// with its end, is searched for one.

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/testing/matchers.h"

namespace {

// Long, so that no std::string keeps it within itself. Searched for by its
// middle: what was half received is as secret.
constexpr std::string_view kPassword =
    "correct horse battery staple, and some more of it";
constexpr std::string_view kMiddle = kPassword.substr(8, 24);

bool searching = false;
int found = 0;

void Search(void* memory) {
  if (!searching || memory == nullptr) return;
  const std::string_view freed(static_cast<const char*>(memory),
                               malloc_usable_size(memory));
  if (freed.find(kMiddle) != std::string_view::npos) ++found;
}

}  // namespace

void* operator new(size_t size) {
  // Zeroed: what an earlier owner left in it is not this one's.
  void* const memory = calloc(1, size);
  if (memory == nullptr) abort();
  return memory;
}

void operator delete(void* memory) noexcept {
  Search(memory);
  free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace ward {
namespace {

using testing::FailsWith;
using testing::IsOk;

// Counts the blocks with the password that are freed while it lives.
class FreedPasswords {
 public:
  FreedPasswords() {
    found = 0;
    searching = true;
  }
  FreedPasswords(const FreedPasswords&) = delete;
  FreedPasswords& operator=(const FreedPasswords&) = delete;
  ~FreedPasswords() { searching = false; }

  int count() const { return found; }
};

class WipeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
    here_ = std::move(ends.first);
    there_ = std::move(ends.second);
  }

  // Ends both channels, and says how many copies were freed since `freed`.
  int CountAtTheEnd(const FreedPasswords& freed) {
    { const MessageChannel last = std::move(here_); }
    { const MessageChannel last = std::move(there_); }
    return freed.count();
  }

  const Secret password_{kPassword};
  MessageChannel here_;
  MessageChannel there_;
};

TEST_F(WipeTest, TheSearchFindsAPasswordThatIsLeft) {
  const FreedPasswords freed;
  { const std::string careless(kPassword); }
  EXPECT_EQ(freed.count(), 1);
}

TEST_F(WipeTest, ASecretIsWiped) {
  const FreedPasswords freed;
  {
    Secret secret(kPassword);
    Secret other = secret.Copy();
    secret = std::move(other);
    EXPECT_EQ(freed.count(), 0);
  }
  EXPECT_EQ(freed.count(), 0);
}

TEST_F(WipeTest, APasswordThatWasPresentedAndExpectedIsWiped) {
  const FreedPasswords freed;
  here_.PresentPassword(password_);
  there_.ExpectPassword(password_);
  ASSERT_THAT(here_.Write("hello"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordBeforeALargeMessageIsWiped) {
  // The buffers grow with the password in them, and are given back at once.
  const FreedPasswords freed;
  here_.PresentPassword(password_);
  there_.ExpectPassword(password_);
  ASSERT_THAT(here_.WriteScalar(std::string(100'000, 'x')), IsOk());
  std::string scalar;
  ASSERT_THAT(there_.ReadScalar(scalar), IsOk());
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, AWrongPasswordIsWiped) {
  const FreedPasswords freed;
  const Secret right("another one");
  here_.PresentPassword(password_);
  there_.ExpectPassword(right);
  ASSERT_THAT(here_.Write("hello"), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kInvalidPassword));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordOfARefusedWriteIsWiped) {
  const FreedPasswords freed;
  here_.PresentPassword(password_);
  EXPECT_THAT(here_.WriteScalar(std::string(17 << 20, 'x')),
              FailsWith(reason::kFrameTooLarge));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordOfAFailedWriteIsWiped) {
  const FreedPasswords freed;
  here_.PresentPassword(password_);
  there_.Close();
  EXPECT_THAT(here_.Write("hello"), FailsWith(reason::kConnectionLost));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordThatNeverCameWholeIsWiped) {
  // A frame of 100 bytes, the first field of which is a password.
  const std::string start = absl::StrCat("\x64\x12\x31", kPassword);
  const FreedPasswords freed;
  there_.ExpectPassword(password_);
  ASSERT_EQ(send(here_.transport()->descriptor(), start.data(), start.size(),
                 MSG_NOSIGNAL),
            static_cast<ssize_t>(start.size()));
  here_.Close();
  EXPECT_THAT(there_.Read(), FailsWith(reason::kConnectionLost));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, ClosingWipesAPasswordThatNeverCameWhole) {
  const std::string start = absl::StrCat("\x64\x12\x31", kPassword);
  const FreedPasswords freed;
  there_.ExpectPassword(password_);
  there_.set_timeout(absl::ZeroDuration());
  ASSERT_EQ(send(here_.transport()->descriptor(), start.data(), start.size(),
                 MSG_NOSIGNAL),
            static_cast<ssize_t>(start.size()));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kTimedOut));
  there_.Close();
  EXPECT_THAT(there_.Read(), FailsWith(reason::kChannelClosed));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordInALaterFrameIsWiped) {
  const FreedPasswords freed;
  ASSERT_THAT(here_.Write("hello"), IsOk());
  here_.PresentPassword(password_);
  ASSERT_THAT(here_.Write("late"), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordInALaterFrameThatIsCutOffIsWiped) {
  const std::string start =
      absl::StrCat("\x02\x22", std::string(1, '\0'), "\x64\x12\x31", kPassword);
  for (const bool timed_out : {false, true}) {
    SetUp();
    const FreedPasswords freed;
    there_.set_timeout(absl::ZeroDuration());
    ASSERT_EQ(send(here_.transport()->descriptor(), start.data(), start.size(),
                   MSG_NOSIGNAL),
              static_cast<ssize_t>(start.size()));
    if (!timed_out) here_.Close();
    std::string scalar;
    ASSERT_THAT(there_.ReadScalar(scalar), IsOk());
    EXPECT_THAT(there_.Read(), FailsWith(timed_out ? reason::kTimedOut
                                                   : reason::kConnectionLost));
    EXPECT_EQ(CountAtTheEnd(freed), 0);
  }
}

TEST_F(WipeTest, APasswordInALargeLaterFrameIsWiped) {
  const FreedPasswords freed;
  ASSERT_THAT(here_.Write("hello"), IsOk());
  here_.PresentPassword(password_);
  ASSERT_THAT(here_.WriteScalar(std::string(100'000, 'x')), IsOk());
  ASSERT_THAT(there_.Read(), IsOk());
  EXPECT_THAT(there_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordInALargeScalarThatIsCutOffIsWiped) {
  // Of 300,000 bytes; received where it would stay, which grows on the way.
  const std::string start = absl::StrCat("\xe4\xa7\x12\x22\xe0\xa7\x12",
                                         kPassword, std::string(100'000, 'x'));
  const FreedPasswords freed;
  ASSERT_EQ(send(here_.transport()->descriptor(), start.data(), start.size(),
                 MSG_NOSIGNAL),
            static_cast<ssize_t>(start.size()));
  here_.Close();
  std::string scalar;
  EXPECT_THAT(there_.ReadScalar(scalar), FailsWith(reason::kConnectionLost));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

TEST_F(WipeTest, APasswordInAMalformedFrameIsWiped) {
  const std::string frame =
      absl::StrCat("\x34\x12\x31", kPassword, "\x2a");  // A tag, no error.
  const FreedPasswords freed;
  there_.ExpectPassword(password_);
  ASSERT_EQ(send(here_.transport()->descriptor(), frame.data(), frame.size(),
                 MSG_NOSIGNAL),
            static_cast<ssize_t>(frame.size()));
  EXPECT_THAT(there_.Read(), FailsWith(reason::kMalformedFrame));
  EXPECT_EQ(CountAtTheEnd(freed), 0);
}

}  // namespace
}  // namespace ward
