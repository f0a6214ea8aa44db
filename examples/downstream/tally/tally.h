// The interface of TallyServer, for those that call it.
//
//   TallyServer server;
//   WARD_RETURN_IF_ERROR(server.Start());
//   WARD_ASSIGN_OR_RETURN(const int64_t total, server.Call(kAdd, "visits", 1));

#ifndef TALLY_TALLY_H_
#define TALLY_TALLY_H_

#include <cstdint>
#include <string>

#include "ward/server/method.h"

// A name, and what is added to its total; the total then.
inline constexpr ward::Method<ward::Arguments<std::string, int64_t>, int64_t>
    kAdd{"add"};

// The total of a name. NotFound if nothing was ever added to it.
inline constexpr ward::Method<std::string, int64_t> kTotal{"total"};

#endif  // TALLY_TALLY_H_
