/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox-init COMMAND [ARGUMENT...]: PID 1 of a container started with --init.
 *
 * The kernel discards a signal to PID 1 that has no handler, and makes every orphan its child. So this program
 * runs the command as its child, in a process group of its own and (on a terminal) in the foreground, forwards
 * each signal to it, reaps every child, and exits with the command's status: its code, or 128 plus the signal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127, SIGNALLED = 128 };

/* Faults are bugs of this program and must not be blocked; job control must not stop it. */
static const int faults[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};

static _Noreturn void fail(const char *what, int status)
{
    const char *parts[] = {"sysbox-init: ", what, ": ", strerror(errno), "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(status);
}

/* What is meant for PID 1 alone (sd_listen_fds(3), sd_watchdog_enabled(3)) is the command's. */
static void name_own_pid(const char *variable)
{
    const char *meant = getenv(variable);
    char number[12] = "", *digit = number + sizeof number - 1;
    if (!meant || strcmp(meant, "1"))
        return;
    for (pid_t pid = getpid(); pid; pid /= 10)
        *--digit = (char)('0' + pid % 10);
    setenv(variable, digit, 1);
}

static _Noreturn void run(char **command, const sigset_t *original)
{
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpgrp()); /* ENOTTY where there is no terminal; SIGTTOU is ignored */
    signal(SIGTTIN, SIG_DFL);
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, original, NULL);
    name_own_pid("LISTEN_PID");
    name_own_pid("WATCHDOG_PID");
    execvp(command[0], command);
    fail(command[0], errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* Reap every child that has ended; the command's status if it is one of them, else -1. */
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
