#include "ward/tools/wardctl/content.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"
#include "ward/proto/frame.pb.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/files.h"
#include "ward/tools/wardctl/messages.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr std::string_view kDescriptor = "descriptor";
constexpr std::string_view kDescriptors = "descriptors";
constexpr std::string_view kBulk = "bulk";
constexpr std::string_view kString = "string";
constexpr std::string_view kOwner = "owner";
constexpr std::string_view kMessage = "message";
constexpr std::string_view kConversation = "conversation";

// All types but protobufs'.
constexpr std::array<std::string_view, 18> kOwnTypes = {
    kString,  "int8",   "int16",  "int32",     "int64",      "uint8",
    "uint16", "uint32", "uint64", "float",     "double",     "bool",
    kBulk,    kOwner,   kMessage, kDescriptor, kDescriptors, kConversation};

bool IsProtobuf(std::string_view type) {
  return std::find(kOwnTypes.begin(), kOwnTypes.end(), type) == kOwnTypes.end();
}

// A message under way.
class Builder {
 public:
  absl::Status Add(const Argument& argument) {
    if (argument.descriptor() != nullptr) return Attach(*argument.descriptor());
    parts_.emplace_back(argument.view());
    if (argument.memory() != nullptr) return Attach(*argument.memory());
    if (argument.named() == nullptr) return absl::OkStatus();
    WARD_RETURN_IF_ERROR(argument.named()->Check());
    for (const FileDescriptor& one : argument.named()->descriptors()) {
      WARD_RETURN_IF_ERROR(Attach(one));
    }
    return absl::OkStatus();
  }

  Message Build() && {
    return Message(std::move(parts_), std::move(descriptors_));
  }

 private:
  absl::Status Attach(const FileDescriptor& descriptor) {
    WARD_ASSIGN_OR_RETURN(FileDescriptor copy,
                          FileDescriptor::DuplicateOf(descriptor.get()));
    descriptors_.push_back(std::move(copy));
    return absl::OkStatus();
  }

  std::vector<std::string> parts_;
  std::vector<FileDescriptor> descriptors_;
};

absl::StatusOr<Bulk> ReadBulk(const std::string& word, absl::Time deadline) {
  WARD_ASSIGN_OR_RETURN(const FileDescriptor file, OpenWord(word, deadline));
  WARD_ASSIGN_OR_RETURN(const std::string all, ReadAll(file, deadline));
  WARD_ASSIGN_OR_RETURN(BulkBuffer buffer, AllocateBulk(all.size()));
  std::copy(all.begin(), all.end(), buffer.bytes().begin());
  return std::move(buffer).Seal();
}

absl::Status AddWord(const std::string& type, const std::string& word,
                     const Messages& messages, absl::Time deadline,
                     Builder& message) {
  if (type == kDescriptor) {
    WARD_ASSIGN_OR_RETURN(const FileDescriptor file, OpenWord(word, deadline));
    return message.Add(file);
  }
  if (type == kDescriptors) {
    Descriptors named;
    for (const std::string_view one :
         absl::StrSplit(word, ',', absl::SkipEmpty())) {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(one, absl::MaxSplits('=', 1));
      if (parts.first.size() == one.size()) {
        return UsageError(absl::StrCat(
            "descriptors are NAME=FILE,..., which \"", one, "\" is not"));
      }
      WARD_ASSIGN_OR_RETURN(FileDescriptor file,
                            OpenWord(parts.second, deadline));
      named.Add(parts.first, std::move(file));
    }
    return message.Add(named);
  }
  if (type == kBulk) {
    WARD_ASSIGN_OR_RETURN(const Bulk bulk, ReadBulk(word, deadline));
    return message.Add(bulk);
  }
  if (type == kOwner) {
    return UsageError("a share in a server's ownership cannot be given");
  }
  if (!IsProtobuf(type)) return message.Add(word);
  std::string text = word;
  if (word == "-") {
    WARD_ASSIGN_OR_RETURN(const FileDescriptor input, OpenWord(word, deadline));
    WARD_ASSIGN_OR_RETURN(text, ReadAll(input, deadline));
  }
  WARD_ASSIGN_OR_RETURN(const std::string bytes, messages.FromText(type, text));
  return message.Add(bytes);
}

// Takes the values of a reply out, one after the other.
class Parts {
 public:
  explicit Parts(Message message) : message_(std::move(message)) {}

  bool has_part() const { return part_ < message_.size(); }
  bool has_descriptor() const {
    return descriptor_ < message_.descriptors().size();
  }
  const std::string& NextPart() { return message_[part_++]; }
  FileDescriptor NextDescriptor() {
    return std::move(message_.descriptors()[descriptor_++]);
  }

  // The next part as a message of its own, with as many descriptors as it
  // says.
  template <typename Value>
  absl::StatusOr<Value> Next() {
    const std::string& part = NextPart();
    std::vector<FileDescriptor> own;
    for (size_t left = CountOf<Value>(part); left > 0 && has_descriptor();
         --left) {
      own.push_back(NextDescriptor());
    }
    Message alone({part}, std::move(own));
    WARD_ASSIGN_OR_RETURN(std::tuple<Value> value, alone.Unpack<Value>());
    return std::get<0>(std::move(value));
  }

 private:
  template <typename Value>
  static size_t CountOf(const std::string& part) {
    if constexpr (std::is_same_v<Value, Bulk>) {
      proto::Bulk bulk;
      return bulk.ParseFromString(part) && bulk.size() != 0 ? 1 : 0;
    } else {
      proto::DescriptorNames names;
      return names.ParseFromString(part) ? names.name_size() : 0;
    }
  }

  Message message_;
  size_t part_ = 0;
  size_t descriptor_ = 0;
};

absl::Status Unexpected(const Content& content) {
  return MakeError(
      ward::reason::kUnexpectedFrame,
      absl::StrCat("what came is not what the server says of itself: ",
                   absl::StrJoin(content.types, ", ")));
}

}  // namespace

Content Content::Parse(std::string_view text) {
  Content content;
  content.is_stream = absl::ConsumePrefix(&text, "stream of ");
  content.types = absl::StrSplit(text, ", ", absl::SkipEmpty());
  return content;
}

bool Content::is_anything() const {
  return types.size() == 1 &&
         (types[0] == kMessage || types[0] == kConversation);
}

bool Content::has_protobuf() const {
  return std::any_of(types.begin(), types.end(), &IsProtobuf);
}

absl::StatusOr<Message> MakeMessage(std::string_view name,
                                    const Content& content,
                                    absl::Span<const std::string> words,
                                    const Messages& messages,
                                    absl::Time deadline) {
  Builder message;
  if (!name.empty()) WARD_RETURN_IF_ERROR(message.Add(name));
  if (content.is_anything()) {
    for (const std::string& word : words) {
      WARD_RETURN_IF_ERROR(message.Add(word));
    }
    return std::move(message).Build();
  }
  if (words.size() != content.types.size()) {
    return UsageError(absl::StrCat(
        name.empty() ? "an element" : name, " takes ",
        content.types.empty() ? "nothing" : absl::StrJoin(content.types, ", "),
        "; there ", words.size() == 1 ? "is 1 word" : "are ",
        words.size() == 1 ? "" : absl::StrCat(words.size(), " words")));
  }
  for (size_t i = 0; i < words.size(); ++i) {
    WARD_RETURN_IF_ERROR(
        AddWord(content.types[i], words[i], messages, deadline, message));
  }
  return std::move(message).Build();
}

Printer::Printer(const CommandLine& line, const Messages& messages,
                 absl::Time deadline)
    : raw_(line.Has(kRaw)), messages_(messages), deadline_(deadline) {
  for (const std::string& output : line.All(kOutput)) {
    const size_t equals = output.find('=');
    if (equals == std::string::npos) {
      outputs_["1"] = output;
    } else {
      outputs_[output.substr(0, equals)] = output.substr(equals + 1);
    }
  }
}

absl::StatusOr<std::string> Printer::Deliver(const std::string& name,
                                             const FileDescriptor& descriptor) {
  const auto output = outputs_.find(name);
  if (output == outputs_.end()) return NameOf(descriptor);
  const std::string& file = output->second;
  FileDescriptor& opened = opened_[name];
  const absl::Status status = [&]() -> absl::Status {
    if (!opened.is_open()) {
      // One that comes later goes behind.
      WARD_ASSIGN_OR_RETURN(
          opened, file == "-" ? FileDescriptor::DuplicateOf(STDOUT_FILENO)
                              : OpenFile(file, O_WRONLY | O_CREAT | O_TRUNC,
                                         deadline_));
    }
    std::cout.flush();
    return CopyAll(descriptor, opened, deadline_);
  }();
  if (status.ok()) return "";
  if (HasReason(status, ward::reason::kTimedOut)) return status;
  return MakeError(reason::kOutputLost,
                   absl::StrCat(file, ": ", status.message()));
}

absl::Status Printer::Show(const std::vector<std::string>& fields) const {
  // All that came has an output.
  if (fields.empty()) return absl::OkStatus();
  std::cout << absl::StrJoin(fields, raw_ ? "" : "\t");
  // At once: somebody may wait for this line of a stream.
  if (!raw_) std::cout << "\n";
  std::cout.flush();
  if (std::cout) return absl::OkStatus();
  return MakeError(reason::kOutputLost,
                   "standard output does not take what came");
}

absl::Status Printer::Print(const Content& content, Message message) {
  Parts parts(std::move(message));
  std::vector<std::string> fields;
  int numbered = 0;
  // Of a descriptor nothing is left if it has an output.
  const auto deliver = [&](const std::string& name, std::string_view before,
                           const FileDescriptor& one) -> absl::Status {
    WARD_ASSIGN_OR_RETURN(const std::string shown, Deliver(name, one));
    if (!shown.empty()) fields.push_back(absl::StrCat(before, shown));
    return absl::OkStatus();
  };
  const auto add_text = [&](std::string_view text) {
    fields.push_back(raw_ ? std::string(text) : Printable(text));
  };
  const bool is_anything = content.is_anything();
  for (const std::string& type : content.types) {
    if (is_anything) break;
    if (type == kDescriptor) {
      if (!parts.has_descriptor()) return Unexpected(content);
      WARD_RETURN_IF_ERROR(
          deliver(absl::StrCat(++numbered), "", parts.NextDescriptor()));
      continue;
    }
    if (!parts.has_part()) return Unexpected(content);
    if (type == kDescriptors) {
      WARD_ASSIGN_OR_RETURN(const Descriptors named, parts.Next<Descriptors>());
      for (size_t i = 0; i < named.size(); ++i) {
        const std::string& name = named.names()[i];
        WARD_RETURN_IF_ERROR(deliver(name, absl::StrCat(Printable(name), "="),
                                     named.descriptors()[i]));
      }
    } else if (type == kBulk) {
      WARD_ASSIGN_OR_RETURN(const Bulk bulk, parts.Next<Bulk>());
      add_text(bulk.bytes());
    } else if (type == kOwner) {
      // "ward.owner", the path, and what goes with it: the share is given back
      // at once.
      parts.NextPart();
      if (!parts.has_part()) return Unexpected(content);
      add_text(parts.NextPart());
      return Show(fields);
    } else if (IsProtobuf(type)) {
      WARD_ASSIGN_OR_RETURN(
          std::string text,
          messages_.ToText(type, parts.NextPart(),
                           content.is_stream || content.types.size() > 1));
      fields.push_back(std::move(text));
    } else {
      add_text(parts.NextPart());
    }
  }
  while (is_anything && parts.has_part()) add_text(parts.NextPart());
  while (is_anything && parts.has_descriptor()) {
    WARD_RETURN_IF_ERROR(
        deliver(absl::StrCat(++numbered), "", parts.NextDescriptor()));
  }
  if (parts.has_part() || parts.has_descriptor()) return Unexpected(content);
  return Show(fields);
}

}  // namespace ward::ctl
