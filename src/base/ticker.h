/* A thread that calls a function at regular times: for what must go on while the program waits for
 * something else. */
#ifndef BCOP_BASE_TICKER_H
#define BCOP_BASE_TICKER_H

#include "base/status.h"

typedef struct bcop_ticker bcop_ticker;

/* Calls tick(context) every `seconds` in a thread of its own, which takes no signals, until closed.
 * BCOP_INTERNAL when the system gives no thread; `what` names it in the message. Local. */
bcop_status bcop_ticker_open(const char *what, double seconds, void (*tick)(void *context),
                             void *context, bcop_ticker **ticker);

/* Returns when the thread has ended; never called from within it. NULL is allowed. Local. */
void bcop_ticker_close(bcop_ticker *ticker);

#endif
