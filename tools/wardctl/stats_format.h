// What a server tells of itself, for people and for programs.

#ifndef WARD_TOOLS_WARDCTL_STATS_FORMAT_H_
#define WARD_TOOLS_WARDCTL_STATS_FORMAT_H_

#include <string>
#include <string_view>

#include "ward/proto/stats.pb.h"

namespace ward::ctl {

// Names are the server's: they stand in all of these as Printable has them.

// For a person. With `before`, of the same server, numbers of calls and bytes
// are those of a second since then, and latencies those of the calls that ended
// since; if it is another life of it, `before` counts for nothing. Methods that
// were never called only if `all`.
std::string StatsPage(const proto::ServerStats& now,
                      const proto::ServerStats* before, bool all);

// A line, with the names of proto/stats.proto.
std::string StatsJson(const proto::ServerStats& stats);

// Prometheus's text format, of a server at `socket`. Which buckets there are
// does not depend on what was counted, as its functions want.
// https://prometheus.io/docs/instrumenting/exposition_formats
std::string StatsPrometheus(const proto::ServerStats& stats,
                            std::string_view socket);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_STATS_FORMAT_H_
