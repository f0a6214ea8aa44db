// The interface of a store of values by key.
//
//   KeyValueServer store;
//   WARD_RETURN_IF_ERROR(store.Start());
//   WARD_RETURN_IF_ERROR(store.Call(kPut, "colour", "blue"));
//   WARD_ASSIGN_OR_RETURN(auto colours, store.Call(kWatch, "colour"));
//   while (const std::optional<std::string> colour = colours.Next()) { ... }
//
// A key and a value together have 1 MiB at most.

#ifndef WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_H_
#define WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_H_

#include <string>

#include "ward/channel/file_descriptor.h"
#include "ward/server/method.h"

// A key, and its value from now on.
inline constexpr ward::Method<ward::Arguments<std::string, std::string>, void>
    kPut{"put"};

// A key's value. NotFound if it has none.
inline constexpr ward::Method<std::string, std::string> kGet{"get"};

// A key's value, if it has one, and each that it gets from then on. Who reads
// slowly misses some of those between, and never the last.
inline constexpr ward::Method<std::string, ward::Stream<std::string>> kWatch{
    "watch"};

// A file in memory with a key's value, for pread(2) and mmap(2): nobody can
// write to it, nor make it shorter. NotFound if the key has none.
inline constexpr ward::Method<std::string, ward::FileDescriptor> kFile{"file"};

#endif  // WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_H_
