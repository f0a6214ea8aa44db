// Starts a store, and uses each of its methods.

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/key_value/key_value.h"
#include "ward/examples/key_value/key_value_server.h"

namespace {

absl::Status Run() {
  KeyValueServer store;
  WARD_RETURN_IF_ERROR(store.Start());
  WARD_RETURN_IF_ERROR(store.Call(kPut, "colour", "blue"));
  WARD_ASSIGN_OR_RETURN(const std::string colour, store.Call(kGet, "colour"));
  std::cout << "the colour is " << colour << "\n";

  WARD_ASSIGN_OR_RETURN(auto colours, store.Call(kWatch, "colour"));
  std::cout << "watched, it is " << colours.Next().value_or("gone") << "\n";
  WARD_RETURN_IF_ERROR(store.Call(kPut, "colour", "green"));
  std::cout << "now it is " << colours.Next().value_or("gone") << "\n";

  WARD_ASSIGN_OR_RETURN(const ward::FileDescriptor file,
                        store.Call(kFile, "colour"));
  std::array<char, 100> text;
  const ssize_t size = pread(file.get(), text.data(), text.size(), 0);
  std::cout << "in a file: "
            << std::string_view(text.data(), size < 0 ? 0 : size) << "\n";
  return store.Stop();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
