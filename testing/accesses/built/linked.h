#ifndef WARD_TESTING_ACCESSES_BUILT_LINKED_H_
#define WARD_TESTING_ACCESSES_BUILT_LINKED_H_

extern "C" {
// NOLINTBEGIN(readability-identifier-naming): the linker's names.

void ward_count_linked(int& counter);
// The same; the linker is told so.
void ward_count_by_another_name(int& counter);

// NOLINTEND(readability-identifier-naming)
}  // extern "C"

#endif  // WARD_TESTING_ACCESSES_BUILT_LINKED_H_
