#include "ward/examples/file_broker/policy.h"

#include <fnmatch.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

absl::StatusOr<Policy> Policy::Parse(std::string_view text) {
  Policy policy;
  int number = 0;
  for (std::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    Rule rule;
    if (words[0] == "deny") {
      rule.access = Access::kDeny;
    } else if (words[0] == "read") {
      rule.access = Access::kRead;
    } else if (words[0] == "write") {
      rule.access = Access::kWrite;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " of the policy begins with \"",
                       words[0], "\"; write deny, read or write"));
    }
    if (words.size() != 2 || absl::StartsWith(words[1], "/")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "line ", number,
          " of the policy: write one pattern after the first word, of paths "
          "beneath the broker's root"));
    }
    rule.pattern = words[1];
    policy.rules_.push_back(std::move(rule));
  }
  return policy;
}

bool Policy::Allows(Access access, const std::string& path) const {
  for (const Rule& rule : rules_) {
    const int found = fnmatch(rule.pattern.c_str(), path.c_str(), FNM_NOESCAPE);
    if (found == FNM_NOMATCH) continue;
    // What could not be matched, for want of memory, may be what is denied.
    if (found != 0 || rule.access == Access::kDeny) return false;
    if (rule.access == access) return true;
  }
  return false;
}
