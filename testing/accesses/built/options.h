#ifndef WARD_TESTING_ACCESSES_BUILT_OPTIONS_H_
#define WARD_TESTING_ACCESSES_BUILT_OPTIONS_H_

namespace ward::testing {

// Of a library with options that the compiler does not get as they are written.
void CountByOptions(int& counter);
const char* CompilationMode();
const char* TargetCpu();

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_BUILT_OPTIONS_H_
