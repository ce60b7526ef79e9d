#include "app/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child: says through `report` why it could not become gnuplot. */
static void become(const char *folder, int script, int report) {
    char *const arguments[] = {(char[]){"gnuplot"}, (char[]){"-d"}, NULL};
    if (chdir(folder) == 0 && dup2(script, STDIN_FILENO) >= 0)
        execvp(arguments[0], arguments);
    const int error = errno;
    if (write(report, &error, sizeof error) != (ssize_t)sizeof error)
        _exit(126);
    _exit(127);
}

static void feed(int to, const char *script, size_t length) {
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before); /* a gnuplot that ends early shows in its exit code */
    while (length > 0) {
        const ssize_t done = write(to, script, length);
        if (done < 0 && errno != EINTR)
            break;
        script += done > 0 ? done : 0;
        length -= done > 0 ? (size_t)done : 0;
    }
    close(to);
    sigaction(SIGPIPE, &before, NULL);
}

static bcop_status finish(pid_t child, int report) {
    int error = 0, status = 0;
    const ssize_t got = read(report, &error, sizeof error);
    close(report);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (got == (ssize_t)sizeof error) {
        errno = error;
        if (error == ENOENT)
            return bcop_status_fail(BCOP_NO_INPUT, "there is no gnuplot (Debian: gnuplot-nox)");
        return bcop_status_errno(BCOP_INTERNAL, "gnuplot cannot be run");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return bcop_status_fail(BCOP_INTERNAL, "gnuplot failed (%s %d)",
                                WIFEXITED(status) ? "code" : "signal",
                                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return BCOP_OK;
}

bcop_status bcop_gnuplot_run(const char *folder, const char *script, size_t length) {
    int feeder[2], report[2];
    if (pipe(feeder) != 0)
        return bcop_status_errno(BCOP_INTERNAL, "no pipe for gnuplot");
    if (pipe(report) != 0) {
        close(feeder[0]);
        close(feeder[1]);
        return bcop_status_errno(BCOP_INTERNAL, "no pipe for gnuplot");
    }
    for (int i = 0; i < 2; i++) {
        fcntl(feeder[i], F_SETFD, FD_CLOEXEC);
        fcntl(report[i], F_SETFD, FD_CLOEXEC);
    }
    const pid_t child = fork();
    if (child == 0)
        become(folder, feeder[0], report[1]);
    close(feeder[0]);
    close(report[1]);
    if (child < 0) {
        close(feeder[1]);
        close(report[0]);
        return bcop_status_errno(BCOP_INTERNAL, "no process for gnuplot");
    }
    feed(feeder[1], script, length);
    return finish(child, report[0]);
}
