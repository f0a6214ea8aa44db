// What a condition does with its mutex.

#ifndef WARD_TESTING_INTERCEPTION_MUTEX_H_
#define WARD_TESTING_INTERCEPTION_MUTEX_H_

#include <pthread.h>

#include "ward/testing/simulator/scheduler.h"

namespace ward::testing {

int LockInSchedule(Scheduler& scheduler, pthread_mutex_t* mutex);

// No scheduling point.
int UnlockInSchedule(Scheduler& scheduler, pthread_mutex_t* mutex);

}  // namespace ward::testing

#endif  // WARD_TESTING_INTERCEPTION_MUTEX_H_
