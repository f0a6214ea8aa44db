#ifndef WARD_TESTING_ACCESSES_BUILT_C_H_
#define WARD_TESTING_ACCESSES_BUILT_C_H_

#ifdef __cplusplus
extern "C" {
#endif

// Of a library in C.
void ward_count_in_c(int* counter);  // NOLINT(readability-identifier-naming)

#ifdef __cplusplus
}
#endif

#endif  // WARD_TESTING_ACCESSES_BUILT_C_H_
