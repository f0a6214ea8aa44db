#include "ward/testing/simulator/no_scheduling_points.h"

#include <utility>

namespace ward::testing {
namespace {

thread_local int existing = 0;

}  // namespace

NoSchedulingPoints::NoSchedulingPoints() { ++existing; }

NoSchedulingPoints::~NoSchedulingPoints() { --existing; }

bool NoSchedulingPoints::Exist() { return existing > 0; }

NoSchedulingPoints::Suspended::Suspended()
    : found_(std::exchange(existing, 0)) {}

NoSchedulingPoints::Suspended::~Suspended() { existing = found_; }

}  // namespace ward::testing
