#ifndef WARD_TESTING_ACCESSES_BUILT_ASSEMBLED_H_
#define WARD_TESTING_ACCESSES_BUILT_ASSEMBLED_H_

namespace ward::testing {

// Of a library with a source in assembler.
int AssembledTwice(int number);
void CountBesideAssembled(int& counter);

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_BUILT_ASSEMBLED_H_
