#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/content.h"
#include "ward/tools/wardctl/invocation.h"
#include "ward/tools/wardctl/messages.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr Option kAll{"all", "", "those that every server has, too (ward.*)"};
constexpr Option kOptions[] = {kAll,        kTimeout,    kPasswordFile,
                               kPasswordFd, kServerUser, kDescriptorSet};

void Print(const Access::Method& method) {
  std::cout << Printable(method.name) << "(" << Printable(method.request) << ")"
            << (method.reply.empty() ? "" : " -> ") << Printable(method.reply)
            << "\n";
}

// The messages that `methods` have, as in a .proto file.
absl::Status Define(Access& access, const CommandLine& line,
                    const std::vector<Access::Method>& methods) {
  std::set<std::string> types;
  for (const Access::Method& method : methods) {
    for (const std::string& text : {method.request, method.reply}) {
      const Content content = Content::Parse(text);
      if (!content.has_protobuf()) continue;
      types.insert(content.types.begin(), content.types.end());
    }
  }
  if (types.empty()) return absl::OkStatus();
  Messages messages;
  WARD_RETURN_IF_ERROR(Learn(access, line, messages));
  std::cout << messages.Definitions(types);
  return absl::OkStatus();
}

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line));
  const std::vector<std::string>& operands = line.operands();
  if (operands.size() == 1) {
    WARD_ASSIGN_OR_RETURN(const std::vector<Access::Method> methods,
                          access->Methods());
    for (const Access::Method& method : methods) {
      if (line.Has(kAll) || !absl::StartsWith(method.name, "ward.")) {
        Print(method);
      }
    }
    return absl::OkStatus();
  }
  std::vector<Access::Method> named;
  for (size_t i = 1; i < operands.size(); ++i) {
    WARD_ASSIGN_OR_RETURN(Access::Method method,
                          access->FindMethod(operands[i]));
    Print(method);
    named.push_back(std::move(method));
  }
  return Define(*access, line, named);
}

}  // namespace

constexpr Command kMethods = {
    "methods",
    "SERVER [METHOD]...",
    1,
    100,
    "show a server's methods, and what they take",
    "A line for each: its name, the types of its arguments and, behind \"->\", "
    "of "
    "its reply. Where a METHOD is named, the definitions of its protobuf "
    "messages follow, if the server's program has them (ward's "
    "//server:descriptor_set).",
    kOptions,
    &Run,
};

}  // namespace ward::ctl
