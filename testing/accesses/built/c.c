#include "ward/testing/accesses/built/c.h"

void ward_count_in_c(int* counter) { ++*counter; }
