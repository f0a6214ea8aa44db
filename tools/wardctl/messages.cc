#include "ward/tools/wardctl/messages.h"

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "ward/channel/error.h"
#include "ward/tools/wardctl/failure.h"

namespace ward::ctl {
namespace {

using ::google::protobuf::Descriptor;

// Has no fields, so that all are unknown, and shown by their numbers.
constexpr char kNoType[] = "Unknown";

// Keep the first error, which protobuf would otherwise write on standard error
// as it is. The versions from 22 on have other names for it.
#if GOOGLE_PROTOBUF_VERSION >= 4022000
using Text = absl::string_view;
#define WARD_ADD_ERROR_ RecordError
#else
using Text = const std::string&;
#define WARD_ADD_ERROR_ AddError
#endif

class TextError : public google::protobuf::io::ErrorCollector {
 public:
  void WARD_ADD_ERROR_(int line, int column, Text message) override {
    if (!text_.empty()) return;
    text_ =
        absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

class FileError : public google::protobuf::DescriptorPool::ErrorCollector {
 public:
  void WARD_ADD_ERROR_(Text file, Text element,
                       const google::protobuf::Message* /*descriptor*/,
                       ErrorLocation /*location*/, Text message) override {
    if (text_.empty()) text_ = absl::StrCat(file, ", ", element, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Names in JSON, which nobody needs here, would be shown beside each field.
void ForgetJson(google::protobuf::DescriptorProto& type) {
  for (auto& field : *type.mutable_field()) field.clear_json_name();
  for (auto& nested : *type.mutable_nested_type()) ForgetJson(nested);
}

}  // namespace

struct Messages::Pool {
  google::protobuf::DescriptorPool types;
  google::protobuf::DynamicMessageFactory factory{&types};

  const Descriptor* Find(const std::string& type) const {
    return types.FindMessageTypeByName(type);
  }
  std::unique_ptr<google::protobuf::Message> Make(const Descriptor* type) {
    return std::unique_ptr<google::protobuf::Message>(
        factory.GetPrototype(type)->New());
  }
};

Messages::Messages() : pool_(std::make_unique<Pool>()) {
  google::protobuf::FileDescriptorProto file;
  file.set_name("wardctl/unknown.proto");
  file.add_message_type()->set_name(kNoType);
  pool_->types.BuildFile(file);
}

Messages::~Messages() = default;

absl::Status Messages::Add(std::string_view descriptor_set) {
  google::protobuf::FileDescriptorSet set;
  if (!set.ParseFromArray(descriptor_set.data(),
                          static_cast<int>(descriptor_set.size()))) {
    return absl::InvalidArgumentError(
        "the descriptors of the messages are no FileDescriptorSet");
  }
  for (auto& file : *set.mutable_file()) {
    for (auto& type : *file.mutable_message_type()) ForgetJson(type);
    FileError error;
    if (pool_->types.BuildFileCollectingErrors(file, &error) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the descriptors of the messages are not sound: ", error.text()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Messages::FromText(const std::string& type,
                                               const std::string& text) const {
  const Descriptor* const known = pool_->Find(type);
  if (known == nullptr) {
    return UsageError(absl::StrCat(
        "what a ", type,
        " is the server does not tell: its program does not depend on "
        "ward's //server:descriptor_set, or the message is of the lite "
        "runtime; give --descriptor-set (protoc --include_imports "
        "--descriptor_set_out)"));
  }
  const auto message = pool_->Make(known);
  TextError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, message.get())) {
    return UsageError(absl::StrCat("this is no ", type, ": ", error.text()));
  }
  return message->SerializeAsString();
}

absl::StatusOr<std::string> Messages::ToText(const std::string& type,
                                             std::string_view bytes,
                                             bool in_one_line) const {
  const Descriptor* const known = pool_->Find(type);
  const auto message =
      pool_->Make(known != nullptr ? known : pool_->Find(kNoType));
  // Without what is required, too.
  if (!message->ParsePartialFromArray(bytes.data(),
                                      static_cast<int>(bytes.size()))) {
    return MakeError(ward::reason::kUnexpectedFrame,
                     absl::StrCat("what came is no ", type));
  }
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(in_one_line);
  std::string text;
  printer.PrintToString(*message, &text);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

std::string Messages::Definitions(const std::set<std::string>& types) const {
  std::string text;
  std::set<std::string> seen;
  std::vector<const Descriptor*> left;
  // A type that is nested in another is part of that one's definition.
  const auto define = [&](const auto* type) {
    const Descriptor* outer = type->containing_type();
    while (outer != nullptr && outer->containing_type() != nullptr) {
      outer = outer->containing_type();
    }
    const std::string name(outer != nullptr ? outer->full_name()
                                            : type->full_name());
    if (!seen.insert(name).second) return;
    absl::StrAppend(
        &text, "\n// ", name, "\n",
        outer != nullptr ? outer->DebugString() : type->DebugString());
  };
  std::set<const Descriptor*> visited;
  const auto visit = [&](const Descriptor* type) {
    if (type != nullptr && visited.insert(type).second) left.push_back(type);
  };
  for (const std::string& type : types) visit(pool_->Find(type));
  while (!left.empty()) {
    const Descriptor* const type = left.back();
    left.pop_back();
    define(type);
    for (int i = 0; i < type->field_count(); ++i) {
      visit(type->field(i)->message_type());
      const auto* const values = type->field(i)->enum_type();
      if (values != nullptr) define(values);
    }
  }
  return text;
}

}  // namespace ward::ctl
