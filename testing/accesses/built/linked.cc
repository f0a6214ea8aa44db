#include "ward/testing/accesses/built/linked.h"

void ward_count_linked(int& counter) { ++counter; }
