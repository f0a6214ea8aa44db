// Which files a broker opens for its clients.
//
//   # A line each, the first that fits decides; what none fits is denied.
//   deny  public/drafts/*
//   read  public/*
//   write inbox/*
//
// A pattern is fnmatch(3)'s, over the whole path beneath the broker's root; "*"
// fits slashes too. "write" allows to write and to create, not to read.

#ifndef WARD_EXAMPLES_FILE_BROKER_POLICY_H_
#define WARD_EXAMPLES_FILE_BROKER_POLICY_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

class Policy {
 public:
  enum class Access { kDeny, kRead, kWrite };

  // Denies everything.
  Policy() = default;

  // InvalidArgument, with the line's number, for what is no policy.
  static absl::StatusOr<Policy> Parse(std::string_view text);

  // `path` has no "." or "..", no empty part, and does not begin with a slash.
  bool Allows(Access access, const std::string& path) const;

 private:
  struct Rule {
    Access access;
    std::string pattern;
  };

  std::vector<Rule> rules_;
};

#endif  // WARD_EXAMPLES_FILE_BROKER_POLICY_H_
