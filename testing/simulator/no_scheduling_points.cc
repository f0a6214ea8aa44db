#include "ward/testing/simulator/no_scheduling_points.h"

namespace ward::testing {
namespace {

thread_local int existing = 0;

}  // namespace

NoSchedulingPoints::NoSchedulingPoints() { ++existing; }

NoSchedulingPoints::~NoSchedulingPoints() { --existing; }

bool NoSchedulingPoints::Exist() { return existing > 0; }

}  // namespace ward::testing
