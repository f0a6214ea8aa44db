#include "ward/server/exec_entry.h"

#include <cxxabi.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace ward {
namespace {

struct Registration {
  std::string_view name;
  std::type_index type;
  ExecEntry entry;
};

// Written before main(), by one thread, and only read afterwards.
std::vector<Registration>& Registrations() {
  static auto& registrations = *new std::vector<Registration>();
  return registrations;
}

}  // namespace

void RegisterExecEntry(std::string_view name, std::type_index type,
                       ExecEntry entry) {
  for (const Registration& other : Registrations()) {
    if (other.name != name || other.type == type) continue;
    std::cerr << "ward: two server classes are registered as \"" << name
              << "\"; write WARD_REGISTER_SERVER with their namespaces\n";
    std::abort();
  }
  Registrations().push_back({name, type, entry});
}

absl::StatusOr<ExecEntry> FindExecEntry(std::string_view name) {
  for (const Registration& registration : Registrations()) {
    if (registration.name == name) return registration.entry;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("start by exec: nothing is registered as \"", name, "\""));
}

namespace {

std::string NameOf(std::type_index type) {
  int status = 0;
  char* const name =
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string result = status == 0 ? name : type.name();
  std::free(name);
  return result;
}

}  // namespace

absl::StatusOr<std::string_view> ExecEntryName(std::type_index type) {
  for (const Registration& registration : Registrations()) {
    if (registration.type == type) return registration.name;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "start by exec: the server's class (", NameOf(type),
      ") is not registered, so that a new process would not know what to run; "
      "write WARD_REGISTER_SERVER(ItsName); in its .cc file"));
}

}  // namespace ward
