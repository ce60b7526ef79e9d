#include "train/stop.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t system_asked, person_asked;

static void on_signal(int number) {
    if (number == SIGUSR1) {
        system_asked = 1;
        return;
    }
    person_asked = 1;
    signal(number, SIG_DFL); /* the next one is not ours */
}

void bcop_stop_install(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bcop_status bcop_stop_requested(void) {
    if (person_asked)
        return BCOP_STOPPED;
    if (!system_asked)
        return BCOP_OK;
    const char *file = getenv("BCOP_STOP_FILE");
    return file && access(file, F_OK) == 0 ? BCOP_STOPPED : BCOP_INTERRUPTED;
}
