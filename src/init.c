/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox-init COMMAND [ARGUMENT...]: PID 1 of a container started with --init.
 *
 * PID 1 ignores a signal it has no handler for, and inherits every orphan. So this one runs the command as
 * its child, in a process group and (on a terminal) the foreground of its own, forwards it each signal,
 * reaps whatever ends, and exits with the command's status: its code, or 128 plus the signal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127, SIGNALLED = 128 };

/* Faults are our own bugs and must not be held back; job control must not stop us. */
static const int faults[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};

static _Noreturn void fail(const char *what, int status)
{
    const char *parts[] = {"sysbox-init: ", what, ": ", strerror(errno), "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(status);
}

static _Noreturn void run(char **command, const sigset_t *original)
{
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpgrp()); /* ENOTTY where there is no terminal; SIGTTOU is ignored */
    signal(SIGTTIN, SIG_DFL);
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, original, NULL);
    execvp(command[0], command);
    fail(command[0], errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* Reap all that has ended; the command's status once it is among them, else -1. */
static int reap(pid_t child)
{
    int status, result = -1;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == child)
            result = WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
    return result;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        errno = EINVAL;
        fail("no command", FAILED);
    }
    sigset_t awaited, original;
    sigfillset(&awaited);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&awaited, faults[i]);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    sigprocmask(SIG_SETMASK, &awaited, &original);

    pid_t child = fork();
    if (child < 0)
        fail("fork", FAILED);
    if (child == 0)
        run(argv + 1, &original);
    for (;;) {
        int number = sigwaitinfo(&awaited, NULL);
        if (number == SIGCHLD) {
            int status = reap(child);
            if (status >= 0)
                return status;
        } else if (number > 0 && number != SIGTTIN && number != SIGTTOU) {
            kill(child, number);
        }
    }
}
