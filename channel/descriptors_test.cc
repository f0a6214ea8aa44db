// Named descriptors: as an object, and as an argument of messages.

#include "ward/channel/descriptors.h"

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/argument.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
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
using ::testing::Not;
using ::testing::SizeIs;

std::vector<FileDescriptor> OpenNulls(size_t count) {
  std::vector<FileDescriptor> all;
  while (all.size() < count) all.push_back(OpenNull());
  return all;
}

Descriptors Named(const std::vector<std::string>& names) {
  Descriptors named;
  for (const std::string& name : names) named.Add(name, OpenNull());
  return named;
}

std::string PartOf(const std::vector<std::string>& names) {
  proto::DescriptorNames part;
  for (const std::string& name : names) part.add_name(name);
  return part.SerializeAsString();
}

// None of these tests may leave a descriptor behind.
class DescriptorsTest : public ::testing::Test {
 protected:
  ~DescriptorsTest() override { EXPECT_EQ(OpenDescriptors(), before_); }

 private:
  const std::map<int, std::string> before_ = OpenDescriptors();
};

// --- the object ---

TEST_F(DescriptorsTest, AreTakenByTheirNames) {
  Descriptors files;
  FileDescriptor out = OpenNull();
  const int number = out.get();
  files.Add("stdin", OpenNull());
  files.Add("stdout", std::move(out));
  files.Add("stderr", OpenNull());
  EXPECT_THAT(files.Check(), IsOk());
  EXPECT_THAT(files.names(), ElementsAre("stdin", "stdout", "stderr"));
  EXPECT_EQ(files.descriptors()[1].get(), number);
  ASSERT_OK_AND_ASSIGN(const FileDescriptor taken, files.Take("stdout"));
  EXPECT_EQ(taken.get(), number);
  EXPECT_THAT(files.names(), ElementsAre("stdin", "stderr"));
  EXPECT_EQ(files.size(), 2u);
  EXPECT_THAT(files.descriptors(), SizeIs(2));
  EXPECT_THAT(files.Take("stdin"), IsOk());
  EXPECT_THAT(files.Take("stderr"), IsOk());
  EXPECT_THAT(files.names(), IsEmpty());
}

TEST_F(DescriptorsTest, ANameThatThereIsNotIsToldThoseThatThereAre) {
  Descriptors files = Named({"out", "e\nrr"});
  EXPECT_THAT(
      files.Take("stdout"),
      FailsWith(reason::kInvalidArguments,
                R"(no descriptor has the name "stdout"; there are "out", )"
                R"("e\nrr")"));
  EXPECT_THAT(files.Take(""), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(files.names(), SizeIs(2));
  EXPECT_THAT(Descriptors().Take("x"),
              FailsWith(reason::kInvalidArguments, "there are none"));
  std::vector<std::string> many;
  for (int i = 0; i < 20; ++i) many.push_back(absl::StrCat("n", i));
  const std::string text(Named(many).Take("x").status().message());
  EXPECT_THAT(text, HasSubstr("\"n15\", and 4 more"));
  EXPECT_THAT(text, Not(HasSubstr("n16")));
}

TEST_F(DescriptorsTest, SayWhatIsWrongWithThem) {
  const std::string longest(Descriptors::kLongestName, 'x');
  EXPECT_THAT(Descriptors().Check(), IsOk());
  EXPECT_THAT(Named({longest, std::string("\0\xff", 2)}).Check(), IsOk());
  EXPECT_THAT(Named({"a", ""}).Check(),
              FailsWith(reason::kInvalidArguments, "the empty name"));
  EXPECT_THAT(Named({longest + "x"}).Check(),
              FailsWith(reason::kInvalidArguments,
                        "has 256 bytes, over the 255 that it may have"));
  EXPECT_THAT(Named({"a", "b", "a"}).Check(),
              FailsWith(reason::kInvalidArguments, "two have the name \"a\""));
  Descriptors closed = Named({"a"});
  closed.Add("b", FileDescriptor());
  EXPECT_THAT(closed.Check(),
              FailsWith(reason::kInvalidArguments, "\"b\" is not open"));
}

// --- in messages ---

TEST_F(DescriptorsTest, AreAPartAndWhatIsAttached) {
  const Descriptors files = Named({"b", "a"});
  const Argument argument(files);
  EXPECT_EQ(argument.view(), PartOf({"b", "a"}));
  EXPECT_EQ(argument.named(), &files);
  EXPECT_EQ(argument.descriptor(), nullptr);
  EXPECT_EQ(Argument("text").named(), nullptr);
}

TEST_F(DescriptorsTest, GoFromOneEndOfAChannelToTheOther) {
  ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
  auto& [here, there] = ends;
  const FileDescriptor alone = OpenNull();
  ASSERT_THAT(here.Write("run", Named({"in", "out"}), 7, alone, Descriptors(),
                         Named({"in"})),
              IsOk());
  ASSERT_OK_AND_ASSIGN(Message message, there.Read());
  EXPECT_THAT(message.parts(), SizeIs(5));
  EXPECT_THAT(message.descriptors(), SizeIs(4));
  ASSERT_OK_AND_ASSIGN(
      auto values, (message.UnpackArguments<Descriptors, int, FileDescriptor,
                                            Descriptors, Descriptors>()));
  EXPECT_THAT(std::get<0>(values).names(), ElementsAre("in", "out"));
  EXPECT_EQ(std::get<1>(values), 7);
  EXPECT_TRUE(std::get<2>(values).is_open());
  EXPECT_EQ(std::get<3>(values).size(), 0u);
  EXPECT_THAT(std::get<4>(values).names(), ElementsAre("in"));
  for (const Descriptors* named :
       {&std::get<0>(values), &std::get<3>(values), &std::get<4>(values)}) {
    EXPECT_THAT(named->Check(), IsOk());
  }
}

TEST_F(DescriptorsTest, AreTakenInTheOrderOfTheArguments) {
  std::vector<FileDescriptor> attached = OpenNulls(4);
  std::vector<int> numbers;
  for (const FileDescriptor& one : attached) numbers.push_back(one.get());
  Message message({PartOf({"a"}), PartOf({"b", "c"})}, std::move(attached));
  ASSERT_OK_AND_ASSIGN(
      auto values,
      (message.Unpack<Descriptors, FileDescriptor, Descriptors>()));
  EXPECT_THAT(message.descriptors(), IsEmpty());
  EXPECT_EQ(std::get<0>(values).descriptors()[0].get(), numbers[0]);
  EXPECT_EQ(std::get<1>(values).get(), numbers[1]);
  ASSERT_OK_AND_ASSIGN(const FileDescriptor c, std::get<2>(values).Take("c"));
  EXPECT_EQ(c.get(), numbers[3]);
  ASSERT_OK_AND_ASSIGN(const FileDescriptor b, std::get<2>(values).Take("b"));
  EXPECT_EQ(b.get(), numbers[2]);
}

TEST_F(DescriptorsTest, ThatAreNotFitAreNotSentAndTheChannelStaysInStep) {
  ASSERT_OK_AND_ASSIGN(auto ends, MessageChannel::CreatePair());
  auto& [here, there] = ends;
  EXPECT_THAT(here.Write("run", Named({"out", "out"})),
              FailsWith(reason::kInvalidArguments, "two have the name"));
  Descriptors many;
  for (int i = 0; i < 254; ++i) many.Add(absl::StrCat(i), OpenNull());
  EXPECT_THAT(here.Write("run", many), FailsWith(reason::kTooManyDescriptors));
  ASSERT_THAT(many.Take("0"), IsOk());
  ASSERT_THAT(here.Write("run", many), IsOk());
  ASSERT_OK_AND_ASSIGN(Message message, there.Read());
  ASSERT_OK_AND_ASSIGN(auto values, message.UnpackArguments<Descriptors>());
  EXPECT_EQ(std::get<0>(values).size(), 253u);
  EXPECT_EQ(std::get<0>(values).names()[252], "253");
}

// What a hostile peer sends.
TEST_F(DescriptorsTest, ThatAreNotWhatTheirNamesSayAreRefused) {
  std::vector<std::string> many;
  for (int i = 0; i < 30'000; ++i) many.push_back(absl::StrCat(i));
  const std::string too_long(Descriptors::kLongestName + 1, 'x');
  const struct {
    std::string part;
    size_t attached;
    std::string_view why;
  } refused[] = {
      {PartOf({"a"}), 0, "1 argument and 1 descriptor, got 1 argument and 0"},
      {PartOf({"a"}), 2, "1 argument and 1 descriptor, got 1 argument and 2"},
      {"", 1, "1 argument and 0 descriptors, got 1 argument and 1"},
      {PartOf({"a", "a"}), 2, "argument 1 must be the names of descriptors"},
      {PartOf({"a", ""}), 2, "argument 1 must be the names of descriptors"},
      {PartOf({too_long}), 1, "argument 1 must be the names of descriptors"},
      {PartOf({"a"}).substr(0, 2), 1, "argument 1 must be the names"},
      {"a", 1, "argument 1 must be the names"},
      {std::string(200'000, '\xff'), 1, "argument 1 must be the names"},
      // What would take many times its own size.
      {PartOf(std::vector<std::string>(100'000)), 1, "must be the names"},
      {PartOf(many), 1, "must be the names"},
  };
  for (const auto& [part, attached, why] : refused) {
    SCOPED_TRACE(part.substr(0, 20));
    Message message({part}, OpenNulls(attached));
    EXPECT_THAT(message.Unpack<Descriptors>(),
                FailsWith(reason::kInvalidArguments, std::string(why)));
    // It is as it was.
    EXPECT_EQ(message[0], part);
    EXPECT_THAT(message.descriptors(), SizeIs(attached));
  }
  EXPECT_THAT(Message().Unpack<Descriptors>(),
              FailsWith(reason::kInvalidArguments));
}

// One's names do not take another's descriptors, nor those of one alone.
TEST_F(DescriptorsTest, ThatOthersHaveAreNotTaken) {
  Message message({PartOf({"a", "b"})}, OpenNulls(2));
  EXPECT_THAT((message.Unpack<FileDescriptor, Descriptors>()),
              FailsWith(reason::kInvalidArguments,
                        "1 argument and 3 descriptors, got 1 argument and 2"));
  Message two({PartOf({"a", "b"}), PartOf({"a"})}, OpenNulls(2));
  EXPECT_THAT((two.Unpack<Descriptors, Descriptors>()),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT((two.Unpack<Descriptors, std::string>()), IsOk());
}

// A field that a later version adds.
TEST_F(DescriptorsTest, MayHaveFieldsThatAreNotKnown) {
  Message message({absl::StrCat(PartOf({"a"}), "\x12\x01x")}, OpenNulls(1));
  ASSERT_OK_AND_ASSIGN(const auto values, message.Unpack<Descriptors>());
  EXPECT_THAT(std::get<0>(values).names(), ElementsAre("a"));
}

}  // namespace
}  // namespace ward
