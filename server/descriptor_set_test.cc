// A tool that knows nothing of a server's protobuf messages can speak them.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/catalog_for_test.pb.h"
#include "ward/server/client.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::ElementsAre;

constexpr Method<Arguments<std::string, test::Query>, Stream<test::Catalog>>
    kFind{"find"};
// Of the lite runtime, which has no descriptors.
constexpr Method<proto::Error, void> kLite{"lite"};

class Shop : public Registered<Shop> {
 public:
  explicit Shop(ServerOptions options = {}) : Registered(std::move(options)) {
    Define(kFind,
           [](const std::string& name, const test::Query& query,
              StreamWriter<test::Catalog>& found) -> absl::Status {
             test::Catalog catalog;
             for (int i = 0; i < query.most(); ++i) {
               test::Part& part = *catalog.add_parts();
               part.set_name(absl::StrCat(name, i));
               part.set_price(100 + i);
             }
             return found.Write(catalog);
           });
    Define(kLite, [](const proto::Error&) { return absl::OkStatus(); });
  }
};

class DescriptorSetTest : public ModesTest {};

TEST_F(DescriptorSetTest, HasTheFilesThatTheMethodsNeedImportsFirst) {
  Shop server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const std::string serialized, server.DescriptorSet());
  google::protobuf::FileDescriptorSet set;
  ASSERT_TRUE(set.ParseFromString(serialized));
  std::vector<std::string> names;
  for (const auto& file : set.file()) names.push_back(file.name());
  EXPECT_THAT(names, ElementsAre("ward/server/part_for_test.proto",
                                 "ward/server/catalog_for_test.proto"));
  EXPECT_EQ(set.file(0).message_type(0).field(1).json_name(), "cents");
  Client client({server.socket_filename(), server.password().Copy()});
  EXPECT_THAT(client.DescriptorSet(), IsOkAndHolds(serialized));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(DescriptorSetTest, IsEnoughToSpeakTheMessages) {
  Shop server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const std::string serialized, server.DescriptorSet());
  // From here on as a tool does that was built without them.
  google::protobuf::FileDescriptorSet set;
  ASSERT_TRUE(set.ParseFromString(serialized));
  google::protobuf::DescriptorPool pool;
  for (const auto& file : set.file()) {
    ASSERT_NE(pool.BuildFile(file), nullptr) << file.name();
  }
  const auto* const query_type = pool.FindMessageTypeByName("ward.test.Query");
  const auto* const reply_type =
      pool.FindMessageTypeByName("ward.test.Catalog");
  ASSERT_NE(query_type, nullptr);
  ASSERT_NE(reply_type, nullptr);
  google::protobuf::DynamicMessageFactory factory(&pool);
  const std::unique_ptr<google::protobuf::Message> query(
      factory.GetPrototype(query_type)->New());
  ASSERT_TRUE(
      google::protobuf::TextFormat::ParseFromString("most: 2", query.get()));
  const std::unique_ptr<google::protobuf::Message> reply(
      factory.GetPrototype(reply_type)->New());
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(
        channel.Write("find", "bolt", query->SerializeAsString()));
    WARD_ASSIGN_OR_RETURN(const Message element, channel.Read());
    EXPECT_TRUE(reply->ParseFromString(element[0]));
    return absl::OkStatus();
  }),
              IsOk());
  std::string text;
  ASSERT_TRUE(google::protobuf::TextFormat::PrintToString(*reply, &text));
  EXPECT_EQ(text, R"(parts {
  name: "bolt0"
  price: 100
}
parts {
  name: "bolt1"
  price: 101
}
)");
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward
