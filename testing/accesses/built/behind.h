#ifndef WARD_TESTING_ACCESSES_BUILT_BEHIND_H_
#define WARD_TESTING_ACCESSES_BUILT_BEHIND_H_

namespace ward::testing {

// Of a library behind a rule that is no cc_library.
void CountBehind(int& counter);

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_BUILT_BEHIND_H_
