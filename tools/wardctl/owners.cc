#include <iostream>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/message.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/commands.h"
#include "ward/tools/wardctl/password.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr Option kOptions[] = {kTimeout, kPasswordFile, kPasswordFd,
                               kServerUser};

absl::Status Run(const CommandLine& line) {
  WARD_ASSIGN_OR_RETURN(const std::unique_ptr<Access> access,
                        Access::Make(line));
  return access->Ask("ward.owners", [](const Message& owners) {
    for (size_t i = 0; i + 1 < owners.size(); i += 2) {
      std::cout << Printable(owners[i]) << "  " << Printable(owners[i + 1])
                << "\n";
    }
    return absl::OkStatus();
  });
}

}  // namespace

constexpr Command kOwners = {
    "owners",
    "SERVER",
    1,
    1,
    "show which processes keep a server alive",
    "A line for each owner: its pid, and its command. The server quits when "
    "the "
    "last of them is gone. It finds out itself, and sees those that its user "
    "may look into.",
    kOptions,
    &Run,
};

}  // namespace ward::ctl
