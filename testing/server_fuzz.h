// A fuzz target of a server's handlers: any server's, without a word about
// them.
//
//   #include "ward/testing/server_fuzz.h"
//   WARD_FUZZ_SERVER(HelloServer);
//
// ward_server_fuzz_test (defs.bzl) makes a target of that. The class is made
// without arguments; derive one where yours takes options.
//
// An input is what up to three clients do: call handlers by their names with
// arguments that fit, and with such as do not; send bytes that are no frames;
// attach descriptors; come with a wrong password or none; wait, read replies,
// and leave at any time, in the middle of a frame, too. It also chooses the
// schedule. All of it is simulated: the same input takes the same course each
// time, if the handlers do so.
//
// The target fails for what a sanitizer sees and for
//
// - a server that does not start, dies, hangs, does not stop, or serves an
//   honest client no longer;
// - a handler that exits (by _Exit(3) only without libFuzzer, which ends so
//   itself), that leaves a descriptor open (real ones, too), or that waits
//   outside the schedule;
// - any byte to a client that is no frame of ward's protocol, and any frame but
//   an error to one that did not know the password.
//
// A server that writes files, or calls others, does so for every input: give it
// a place of its own, or nothing to call.

#ifndef WARD_TESTING_SERVER_FUZZ_H_
#define WARD_TESTING_SERVER_FUZZ_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/fuzz.h"

// The target of a class, which is the argument.
#define WARD_FUZZ_SERVER(...)                                               \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    ::ward::testing::FuzzServer(                                            \
        [] { return std::make_unique<__VA_ARGS__>(); },                     \
        ::ward::testing::FuzzInput(data, size));                            \
    return 0;                                                               \
  }                                                                         \
  static_assert(true, "a semicolon follows")

namespace ward::testing {

// Does with a new server what `input` says.
void FuzzServer(absl::FunctionRef<std::unique_ptr<AbstractServer>()> make,
                FuzzInput input);

}  // namespace ward::testing

#endif  // WARD_TESTING_SERVER_FUZZ_H_
